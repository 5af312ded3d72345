//! Error codes: what `onnxq explain` knows, and the exit code each leads to.

use std::{fmt, str::FromStr};

use serde::Serialize;

/// Of warnings, which change no exit code.
pub const EXIT_FINE: u8 = 0;
/// A gate failed, or a check found something.
pub const EXIT_GATE: u8 = 1;
/// The command line or the recipe is wrong.
pub const EXIT_USAGE: u8 = 2;
/// An input file is broken.
pub const EXIT_REJECTED: u8 = 3;
/// An input is valid, but this version cannot handle it.
pub const EXIT_UNSUPPORTED: u8 = 4;
/// Disk, files or ONNX Runtime.
pub const EXIT_ENVIRONMENT: u8 = 5;
/// There was nothing to do.
pub const EXIT_NOTHING: u8 = 6;
/// A bug of onnxq.
pub const EXIT_BUG: u8 = 70;

/// A text that is no code.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no such code")]
pub struct UnknownCode;

macro_rules! codes {
    ($($code:ident $exit:ident $text:literal)*) => {
        /// The code of an error (E), of a result that is none (N) or of a warning (W).
        ///
        /// ```
        /// use onnxq_ir::diag::Code;
        /// assert_eq!("e205".parse(), Ok(Code::E205));
        /// ```
        ///
        /// A code without a row in the table does not compile:
        ///
        /// ```compile_fail,E0599
        /// onnxq_ir::diag::Code::E000;
        /// ```
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
        pub enum Code {
            $(#[doc = $text] $code,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &[Code] = &[$(Code::$code,)*];

            /// As messages and reports write the code: `E205`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Code::$code => stringify!($code),)*
                }
            }

            /// What a program ends with that fails so.
            pub const fn exit(self) -> u8 {
                match self {
                    $(Code::$code => $exit,)*
                }
            }

            /// What the code means and what to do, for `onnxq explain`.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Code::$code => $text,)*
                }
            }
        }
    };
}

codes! {
    E101 EXIT_REJECTED "The file is not a protobuf message of the ONNX schema: truncated, random bytes or another format. Compare its checksum with the source."
    E102 EXIT_REJECTED "The file is empty. The download or the export did not finish."
    E103 EXIT_REJECTED "Messages nest deeper than 100 levels. 31 nested subgraphs is the limit of the whole ecosystem; restructure the model."
    E104 EXIT_REJECTED "Decoding would need far more memory than the file's size justifies: the file consists of many tiny messages. It is broken or hostile."
    E105 EXIT_REJECTED "Model-local functions call each other in a cycle; inlining would never end."
    E106 EXIT_REJECTED "Inlining the model-local functions would create more nodes than any model has. The file is broken or hostile."
    E107 EXIT_UNSUPPORTED "The model has fields that this version's schema does not know, in a place where a rewrite would lose them. Pass --drop-unknown to lose them knowingly, or update onnxq."
    E110 EXIT_REJECTED "The file has no graph. It may be another protobuf message."
    E111 EXIT_REJECTED "The model imports no operator set, so its operators have no meaning."
    E112 EXIT_REJECTED "The model imports an operator set that this version does not know: a newer one, or a negative number. Export with an older opset, update onnxq, or pass --allow-unknown-opset."
    E113 EXIT_REJECTED "The model has a newer IR version than this version knows. Update onnxq, or export with an older onnx."
    E120 EXIT_REJECTED "A folder was given as a model, but holds no checkpoint (config.json with model.safetensors) and not one ONNX file."
    E121 EXIT_REJECTED "The config.json of a checkpoint, or the index of its weights, cannot be read: no JSON, a field is missing or of the wrong type, or two fields contradict each other."
    E122 EXIT_UNSUPPORTED "The architecture of a checkpoint, a field of its config.json that may change what it computes, or the type of a tensor is not implemented. A graph without it would be wrong, so there is none."
    E123 EXIT_REJECTED "A safetensors or GGUF file is broken: its header, the places of its tensors, or its length. Download it again."
    E124 EXIT_REJECTED "The weights of a checkpoint do not fit its config.json: a tensor is missing, has another shape, or is used by nothing."
    E125 EXIT_UNSUPPORTED "The weights of a checkpoint are pickles of PyTorch, which can run code when they are read. Save it again as safetensors."
    E126 EXIT_UNSUPPORTED "A layout of `onnxq import` cannot hold what was asked for: it is for decoders, or two recipes would share one file."
    E201 EXIT_REJECTED "External data must lie beside the model: a relative path without `..`, drive letters or control characters."
    E202 EXIT_REJECTED "The external data file is a link that leads out of the model's folder (and out of the folder of the real model file). Copy the data beside the model."
    E203 EXIT_REJECTED "Under --external-policy strict, links to external data are refused, as onnx's own reader does."
    E204 EXIT_REJECTED "External data must be a regular file, not a device, pipe or folder."
    E205 EXIT_REJECTED "The declared range of external data does not fit its file or its shape. The data file is probably truncated: compare its size and checksum with the source."
    E206 EXIT_REJECTED "The external data file is missing. Copy the data files together with the .onnx file."
    E207 EXIT_REJECTED "An input file changed while it was read. Run again when nothing writes to it."
    E208 EXIT_REJECTED "A tensor states a key of its external data twice, so its place is ambiguous."
    E209 EXIT_REJECTED "The checksum of external data that the model states does not match the file."
    E301 EXIT_REJECTED "A tensor has a negative dimension."
    E302 EXIT_REJECTED "A tensor's dimensions multiply to more than memory can address, or than its data has."
    E303 EXIT_REJECTED "A tensor's data is shorter or longer than its shape needs."
    E304 EXIT_REJECTED "A tensor stores its data twice (raw and typed); readers disagree which counts."
    E305 EXIT_REJECTED "A tensor has no element type, or one that this version does not know."
    E306 EXIT_REJECTED "A tensor stores its data in a field of the wrong type, or a value does not fit its element type."
    E307 EXIT_REJECTED "A packed 4- or 2-bit tensor has the wrong number of bytes."
    E308 EXIT_REJECTED "A sparse tensor's indices are out of range, unsorted, or of the wrong shape."
    E401 EXIT_REJECTED "Two values of a graph, two functions or two attributes of a node have the same name."
    E402 EXIT_REJECTED "Two initializers of a graph have the same name."
    E404 EXIT_REJECTED "The graph has a cycle; no order of execution exists."
    E406 EXIT_REJECTED "A node or an output refers to a value that nothing defines."
    E407 EXIT_UNSUPPORTED "The model uses a part of ONNX that this version reads but cannot rewrite."
    E408 EXIT_REJECTED "The model text has a syntax error."
    E410 EXIT_UNSUPPORTED "The model cannot be converted to that operator set. The message names each node and why; choose a lower --opset, or change those nodes. Operator sets are only raised, never lowered."
    E411 EXIT_UNSUPPORTED "The model cannot be given a cache of keys and values, or its cache no other form. The message names the node that stands against it: something looks at other tokens than attention does, a mask is not causal, or the form is not supported."
    E412 EXIT_UNSUPPORTED "The layers of the model are not recognised, or one of them cannot be removed or narrowed. The message says what stands against it: residual sums that were fused or quantized, another use of what is inside of a layer, or hidden channels that mix."
    E501 EXIT_REJECTED "A weight to be quantized holds NaN or Inf: one such value would turn the whole output into NaN. Fix the checkpoint, or pass --nonfinite skip to leave that tensor in float."
    E502 EXIT_UNSUPPORTED "A site was planned for quantization but its format could not be written. This names the reason; exclude the node or choose another format."
    E503 EXIT_BUG "The model that was written has a form that is slow or broken in ONNX Runtime, and onnxq made it itself. That is a bug; the file is there. `onnxq inspect --lint` shows the nodes."
    E601 EXIT_REJECTED "A data file is not in the format its name promises."
    E602 EXIT_REJECTED "A data file declares more data than it holds, or expands far beyond its size."
    E603 EXIT_REJECTED "A data array has the wrong shape for its input."
    E604 EXIT_REJECTED "A data array has an element type that its input cannot take."
    E605 EXIT_REJECTED "The data holds NaN or Inf."
    E606 EXIT_REJECTED "The data has no samples."
    E607 EXIT_REJECTED "The data lacks an input that the model needs."
    E608 EXIT_USAGE "Text needs a tokenizer: pass --tokenizer tokenizer.json."
    E609 EXIT_REJECTED "The two models cannot be compared: an output is missing, or has another shape or kind of element, or no output is a tensor."
    E610 EXIT_USAGE "The recipe needs calibration data, for a solver, a transform or the ranges of static activations, and none was given. Pass --calibration (for solvers, --stats with the statistics of an earlier run is enough), or choose another recipe."
    E611 EXIT_REJECTED "The statistics belong to another model, other data or another plan. Calibrate again, or pass the files that they were made with."
    E612 EXIT_USAGE "The statistics of one input alone need more memory than the budget. Pass a larger --memory, or a solver that needs less."
    E613 EXIT_REJECTED "The statistics file is damaged, or no statistics file. Calibrate again."
    E614 EXIT_REJECTED "The model computes NaN or Inf on the calibration data, so nothing can be learned from it. Check the model and the data."
    E615 EXIT_USAGE "No mix of the recipe's candidates meets --max-size, --max-kl or --target-bpw. The message names the best that can be had; ask for that, or give other candidates under `mixed`."
    E616 EXIT_USAGE "Nothing says how images become inputs of the model. Pass --preprocess with a shipped description, or with a file of your own (see calibration/README.md)."
    E617 EXIT_GATE "No choice of activations reaches the goal under `adapt` on the calibration data. The message names the best that can be had. Add a more accurate way under `adapt.candidates`, or ask for less."
    E618 EXIT_USAGE "The baseline report was measured on other data, another number of samples or against another original model, so its figures cannot be compared. Make a new baseline with the same data."
    E619 EXIT_REJECTED "The file is no report of onnxq, or of a newer format than this version reads. Pass a report.json, or update onnxq."
    E620 EXIT_REJECTED "The two models compute no inner value of the same name and shape, so nothing says where one becomes the other. Compare with the very file that was quantized; a tool that renames every value leaves nothing to hold on to."
    E621 EXIT_USAGE "The limit of a bisection is broken by the reference itself, or nothing of its kind is measured there (times and sizes are not). Limit how outputs differ: kl.mean<=0.05, sqnr_db>=20."
    E622 EXIT_USAGE "The subcommand runs models, and nothing says on what: no --data was given. Random inputs would prove nothing, so none are made up."
    E623 EXIT_USAGE "The tokenizer makes numbers of tokens that the model's table of embeddings does not have: it is that of another model. Pass the tokenizer.json that came with the model."
    E624 EXIT_USAGE "The place of a model does not say which file to run, or lacks what belongs to it: a folder with several models, a checkpoint that was not imported, no tokenizer.json. The message lists what is there."
    E625 EXIT_REJECTED "The prompt and the answer, or a text to be classified or embedded, have more tokens than the model reads at once. Shorten it, or ask for a shorter answer."
    E626 EXIT_REJECTED "The messages could not be made a prompt: the model has no chat template, or its template fails or refuses them, as some do with a system message or with two users in a row. A prompt that is text needs no template."
    E627 EXIT_UNSUPPORTED "The model does not do what is asked of it: its inputs and outputs are those of another task, or of a kind that is not known here."
    E628 EXIT_USAGE "A request says nothing to work on, or a value in it is out of range."
    E629 EXIT_REJECTED "The model computes NaN, or likelihoods of no token at all, so that no next token can be chosen. Compare it with its original by `onnxq compare`."
    E630 EXIT_REJECTED "The packed form of the model does not answer as the plain model does, bit for bit, or ONNX Runtime does not load it. Nothing was written; the plain model works without a package. Please report the model."
    E631 EXIT_REJECTED "The folder is no package, or files of it are not what they were when it was made. Name a folder that `onnxq package` made; if files changed, make it again of the model, or, if the plain model is right, with --remake."
    E632 EXIT_USAGE "There is no model to package: an .onnx file, or a folder that has some, itself or in its folder `onnx`. Of a checkpoint, `onnxq import` makes one."
    E633 EXIT_USAGE "A package is delivered only if the packed model answers as the plain one does, and no input could be made up that the plain one runs on. Pass --data with a sample."
    E640 EXIT_UNSUPPORTED "A node lies between the weights to be trained and the output that is compared, and no gradient passes it. `onnxq explain E640` names the operators that gradients pass."
    E641 EXIT_USAGE "What is to be trained does not fit the model: an output that does not exist or depends on no weight, weights that no selector matches."
    E643 EXIT_USAGE "A file holds the state of a training that was interrupted, and it is damaged or that of another one. Delete it to begin anew, or name another output."
    E644 EXIT_REJECTED "Teacher and student have another vocabulary, or outputs of another kind, so one cannot learn from what the other says of each token. Let the teacher answer prompts, and train the student on the answers: they are text, and any tokenizer will do."
    E700 EXIT_USAGE "The command line is not understood: a flag that does not exist, a value that it does not take, an argument that is missing or too many. The hint says what to write, and how the command is used."
    E701 EXIT_USAGE "The recipe, or the description of images, has a key that does not exist, or is not valid YAML."
    E702 EXIT_USAGE "A pattern of the recipe matches no node. Add `optional: true` if the rule is meant for other models."
    E703 EXIT_USAGE "A value of the recipe, or of the description of images, has the wrong type or range."
    E704 EXIT_USAGE "The recipe combines settings that no format can store."
    E705 EXIT_USAGE "There is no recipe, or description of images, of that name, or the file cannot be read."
    E706 EXIT_USAGE "A gate is not of the form metric.statistic<=limit."
    E710 EXIT_USAGE "--fix-shape or --fix-dim does not fit the model: no such input or dimension, another rank, or sizes that contradict each other."
    E711 EXIT_USAGE "The name of the output does not say in which format to write the report. Pass --format, or a name that ends in .html, .json, .md, .sarif or .xml."
    E712 EXIT_USAGE "A flag would have no effect: gates, baselines and reports of `quantize` need a comparison with the original, which needs --data and which a dry run does not make; flags of `run` that are of another task, or that say how to choose among tokens where the most likely one is always taken."
    E713 EXIT_USAGE "The description of what to serve has a key that does not exist, or is not valid YAML."
    E714 EXIT_USAGE "A value of the description of what to serve has the wrong type or range, or a model has a name that requests could not use."
    E715 EXIT_USAGE "The description of what to serve cannot be read, or something that it names is not there."
    E716 EXIT_USAGE "The server would be open to other machines without a token, or the token is none: it has 16 to 256 printable characters."
    E717 EXIT_ENVIRONMENT "The address that the server shall listen on is in use, or is none of this machine."
    E718 EXIT_ENVIRONMENT "A model alone needs more memory than all models that are served may have together (--memory)."
    E801 EXIT_ENVIRONMENT "ONNX Runtime was not found or could not be loaded."
    E802 EXIT_ENVIRONMENT "The installed ONNX Runtime is too old for this model."
    E803 EXIT_ENVIRONMENT "ONNX Runtime refused the model or failed to run it."
    E804 EXIT_UNSUPPORTED "ONNX Runtime refuses the result, and takes the original: nothing was written. A type or an operator set may have no kernel on the CPU (bfloat16, newest operators): --allow-refused writes the file for a runtime that has them."
    E805 EXIT_ENVIRONMENT "A library of custom operators (--custom-ops) could not be loaded, or does not export `RegisterCustomOps`, by which ONNX Runtime asks it for its operators."
    E806 EXIT_ENVIRONMENT "The process that ran ONNX Runtime for a model ended before it answered: ONNX Runtime crashed, or the system ended it because memory was short (--run-memory limits what it may take). The message says which model, on which input, and what the process said last. --in-process runs models in onnxq's own process instead, which then ends too."
    E807 EXIT_ENVIRONMENT "ONNX Runtime could not be installed."
    E808 EXIT_ENVIRONMENT "Loading a model, or one run of it, took longer than --run-timeout allows, and was ended. Some models never end; give a slow one more time."
    E901 EXIT_ENVIRONMENT "The disk is full or a file could not be written. Nothing was left at the destination."
    E902 EXIT_ENVIRONMENT "A file is there but could not be read: no permission, or the disk fails."
    E903 EXIT_USAGE "The output exists already; pass --force to replace it."
    E904 EXIT_USAGE "The output would overwrite a file that it is made from, in a way that cannot be done safely."
    E905 EXIT_USAGE "A path on the command line leads to nothing, or to something of another kind: a file that is not there, a folder where a file is meant, an output in a folder that does not exist. The hint names what is there."
    E906 EXIT_USAGE "`-` stands for standard input or output, and cannot here: a terminal is no place for a model, a model whose weights lie in another file needs two, and standard input holds one model only. Give a path instead."
    E907 EXIT_USAGE "Another run collects statistics in the same place: its output, or its --stats, is that of this one. Wait until it has ended, or name another."
    E999 EXIT_BUG "A step of onnxq left the model in a state that its own check refuses. That is a bug of onnxq, not of the model or the recipe: please report it with the command and, if possible, the model."
    N001 EXIT_NOTHING "Nothing was quantized; the table of reasons says why. --allow-noop makes this exit 0."
    N002 EXIT_NOTHING "The conversion would change nothing, so nothing was written. --allow-noop writes the model all the same and exits 0."
    N003 EXIT_NOTHING "Training gained nothing: no state was better on held-out samples than the first, so nothing was written. Train for more steps, with a smaller learning rate, or on more samples like those of its use."
    W107 EXIT_FINE "The model has a field that this version's schema does not know. A field of the model itself is written again as it stands; one deeper in the file is lost, which --drop-unknown allows. Update onnxq if the field matters."
    W201 EXIT_FINE "Some of the samples that the models are compared on are samples that the quantized one was calibrated on, as its metadata says, so the figures are better than on new data. Compare on other data. A warning changes no exit code."
    W202 EXIT_FINE "How long the model takes to load and how much memory it needs could not be measured in a process of its own. The comparison itself is not affected. A warning changes no exit code."
    W203 EXIT_FINE "Some nodes of the quantized model run in other kernels than their form says, or in slow ones. `onnxq inspect --executed` names them, `inspect --lint` how to fix them."
    W204 EXIT_FINE "`quantize` said this when it made the model."
    W205 EXIT_FINE "There is so little data that what was learnt or measured depends on chance. Pass more: ten thousand tokens, or a hundred images."
    W208 EXIT_FINE "A tensor's external data states a key that ONNX does not define. Readers ignore the key, and it is not written again."
    W210 EXIT_FINE "Tensors overlap in a file of external data without being the same. That can be meant, if one is a part of another; if it is not, the file was written wrongly: compare its checksum with the source."
    W211 EXIT_FINE "Some outputs of the model are no tensors but sequences, maps or optional values. Only tensors can be compared, so figures, gates and choices by measurement leave these out."
    W212 EXIT_FINE "The model does not run on several samples at once although it declares a batch of any size: a batch of one is baked into its constants. Samples ran one by one, which changes no figure."
    W213 EXIT_FINE "How large an output is depends on numbers that the model computes: boxes that NonMaxSuppression keeps, rows that NonZero finds, a length that a model predicts. Rounding changes such decisions, and outputs of other sizes cannot be compared. So both models go on from what the reference decides, and the values that decide are judged beside the outputs, in figures, gates and choices by measurement. Times are those of the whole models."
    W214 EXIT_FINE "Two inputs give the same name to dimensions that have different sizes in the data, and the model runs with that data: so the name is not true. It is forgotten, and the result that is written does not carry it, because ONNX Runtime takes values whose dimensions have equal names for equally large. If the data is wrong instead, correct it: inputs that belong together, as tokens and their mask, have equal lengths."
    W307 EXIT_FINE "The last byte of a packed 4- or 2-bit tensor has bits that belong to no element and are not zero. They change no result."
    W309 EXIT_FINE "A tensor of strings holds bytes that are not UTF-8, which ONNX asks for. They are kept as they are; tools that show them may fail."
    W403 EXIT_FINE "Two nodes of a graph have the same name. That changes no result, but a pattern of a recipe cannot tell them apart. The model that is written has unique names."
    W404 EXIT_FINE "Weights are listed among the inputs of the model, as exporters for old versions of ONNX write. They are taken as constants, and the result no longer lets its caller override them: --keep-inputs leaves them inputs, which no rewrite and no format touches."
    W405 EXIT_FINE "The nodes of a graph do not come after those that they need, as ONNX demands. They were sorted, and the model that is written is in order. Other tools may refuse this file."
    W406 EXIT_FINE "The operator set of the model could not be raised, because some nodes mean something that newer operators cannot say. It stays as it is, and so does what would have needed a newer one: the text says what. A warning changes no exit code."
    W503 EXIT_FINE "A table of embeddings and the head of the model are the same weight, but are stored in different formats, so the file holds the weight twice. Give both the same format in the recipe to store it once."
    W630 EXIT_FINE "A package has the model's weights as kernels read them, for one version of ONNX Runtime and one kind of CPU, and something does not match: the text says what. The plain model is loaded instead: it answers the same, but each process has its own copy of the weights in memory. `onnxq package FOLDER --remake` packs them for this machine."
    W701 EXIT_FINE "The recipe calls a key by a name that earlier versions had for it. It means the same. Write the new name, which the message gives: the old one will be refused one day."
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// In upper or lower case.
impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Code, UnknownCode> {
        let mut all = Code::ALL.iter().copied();
        all.find(|it| it.name().eq_ignore_ascii_case(text)).ok_or(UnknownCode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_codes_are_read_as_they_are_written() {
        assert!(Code::ALL.is_sorted_by(|a, b| a < b && a.name() < b.name()));
        for &code in Code::ALL {
            assert_eq!(code.to_string().to_lowercase().parse(), Ok(code));
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
        assert_eq!("E2".parse::<Code>(), Err(UnknownCode));
    }

    #[test]
    fn the_first_letter_says_whether_something_failed() {
        for code in Code::ALL {
            let exits: &[u8] = match &code.name()[..1] {
                "W" => &[EXIT_FINE],
                "N" => &[EXIT_NOTHING],
                _ => &[1, 2, 3, 4, 5, 70],
            };
            assert!(exits.contains(&code.exit()), "{code} exits with {}", code.exit());
        }
    }
}
