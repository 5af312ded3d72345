//! A model that was loaded, whatever it does.

use std::path::Path;

use super::{
    AnswerError, Event, Generate, Labelled, ModelFacts, Place, Task, Vectors,
    assets::Assets,
    encode::Encoder,
    generate::Generator,
    kind::{Kind, kind},
    pooling::Pooling,
    prefix::Prefix,
};
use crate::{
    data::{ChatTemplate, DataError, Vocabulary, rows_for},
    engine::{Decoder, EngineError, Runtime, SessionOptions, Stop, package, shares_buffer},
};
use onnxq_ir::onnx;

/// A model with all that belongs to it.
pub struct Model {
    facts: ModelFacts,
    body: Body,
}

enum Body {
    Generate(Box<Generator>),
    Classify(Box<(Encoder, Assets)>),
    Embed(Box<(Encoder, Pooling)>),
}

/// What the reader saw of a model before the engine does.
struct Seen {
    kind: Kind,
    shared: bool,
    rows: Option<usize>,
}

impl Model {
    /// Finds what belongs to the model, reads it, and loads it into ONNX Runtime.
    ///
    /// # Errors
    /// E624 if something is missing, E627 if the model does nothing of all this, and what reading and
    /// loading say.
    pub fn load(place: &Place, runtime: &Runtime<'_>) -> Result<Model, AnswerError> {
        let assets = Assets::find(place)?;
        let seen = look(&assets, place.task)?;
        let vocabulary = Vocabulary::open(assets.tokenizer()?)?;
        let loading = Loading { place, runtime, seen, vocabulary };
        match loading.seen.kind.task {
            Task::Generate => loading.generator(assets),
            Task::Classify => loading.classifier(assets),
            Task::Embed => loading.embedder(assets),
        }
    }

    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// Continues a text. Pieces of the answer are handed on as they come; the last event is
    /// [`Event::Done`], also if it was stopped.
    pub fn generate(
        &mut self,
        request: &Generate,
        stop: &Stop,
        on: &mut dyn FnMut(Event),
    ) -> Result<(), AnswerError> {
        match &mut self.body {
            Body::Generate(model) => model.generate(request, stop, on),
            _ => Err(self.other(Task::Generate)),
        }
    }

    /// One vector for each text.
    pub fn embed(&mut self, texts: &[String]) -> Result<Vectors, AnswerError> {
        match &mut self.body {
            Body::Embed(model) => model.0.embed(texts, &model.1),
            _ => Err(self.other(Task::Embed)),
        }
    }

    /// The labels of each text.
    pub fn classify(&mut self, texts: &[String]) -> Result<Vec<Labelled>, AnswerError> {
        match &mut self.body {
            Body::Classify(model) => model.0.classify(texts, &model.1),
            _ => Err(self.other(Task::Classify)),
        }
    }

    fn other(&self, task: Task) -> AnswerError {
        let does = match self.facts.task {
            Task::Generate => "continues texts",
            Task::Classify => "classifies texts",
            Task::Embed => "makes vectors of texts",
        };
        AnswerError::task(task, format!("it {does}"))
    }
}

/// Our own reader accepts the model before ONNX Runtime sees it. Everything of it is gone afterwards.
fn look(assets: &Assets, task: Option<Task>) -> Result<Seen, AnswerError> {
    let model = onnx::open(&assets.model, &Default::default())?.model;
    Ok(Seen {
        kind: kind(&model, assets, task)?,
        shared: shares_buffer(&model),
        rows: rows_for(&model, "input_ids"),
    })
}

/// What a model of any task is made of.
struct Loading<'a> {
    place: &'a Place,
    runtime: &'a Runtime<'a>,
    seen: Seen,
    vocabulary: Vocabulary,
}

impl Loading<'_> {
    fn options(&self) -> SessionOptions {
        SessionOptions { threads: self.place.threads, ..SessionOptions::default() }
    }

    /// A session of the packed form, if the model lies in a package that fits here; if it does not, why.
    fn open<S>(
        &self,
        assets: &Assets,
        load: impl Fn(&Runtime<'_>, &Path, &SessionOptions) -> Result<S, EngineError>,
    ) -> Result<(S, Option<String>), AnswerError> {
        let load = |path: &Path, options: &SessionOptions| load(self.runtime, path, options);
        let loaded = package::open(&assets.model, self.runtime, &self.options(), load)?;
        let note = loaded.not_used.map(|it| it.warning(&assets.model).message);
        Ok((loaded.session, note))
    }

    fn generator(self, assets: Assets) -> Result<Model, AnswerError> {
        let shared = self.seen.shared;
        let (decoder, packed) = self
            .open(&assets, |runtime, path, options| runtime.open_decoder(path, options, shared))?;
        let template = ChatTemplate::beside(&assets.tokenizer_config)?;
        let ends = ends(&assets, &self.vocabulary, template.as_ref())?;
        let (context, guessed) = assets.used_context(self.place.context, decoder.most())?;
        let mut notes = notes(&*decoder, (context, guessed));
        notes.extend(packed);
        if ends.is_empty() {
            notes.push("no file says which token ends an answer: it goes on to its limit".into());
        }
        let facts = ModelFacts {
            task: Task::Generate,
            context,
            bytes_per_token: decoder.bytes_per_token(),
            chat: template.is_some(),
            samples: assets.samples(),
            notes,
        };
        let (vocabulary, rows, prefix) = (self.vocabulary, self.seen.rows, Prefix::default());
        let model =
            Generator { assets, decoder, vocabulary, template, ends, rows, context, prefix };
        Ok(Model { facts, body: Body::Generate(Box::new(model)) })
    }

    fn classifier(self, assets: Assets) -> Result<Model, AnswerError> {
        let (encoder, facts) = self.encoder(&assets)?;
        Ok(Model { facts, body: Body::Classify(Box::new((encoder, assets))) })
    }

    fn embedder(self, assets: Assets) -> Result<Model, AnswerError> {
        let (pooling, note) = match self.seen.kind.whole {
            true => (Pooling::WHOLE, None),
            false => Pooling::of(&assets)?,
        };
        let (encoder, mut facts) = self.encoder(&assets)?;
        facts.notes.extend(note);
        Ok(Model { facts, body: Body::Embed(Box::new((encoder, pooling))) })
    }

    fn encoder(self, assets: &Assets) -> Result<(Encoder, ModelFacts), AnswerError> {
        let (session, packed) =
            self.open(assets, |runtime, path, options| runtime.open(path, options))?;
        let (context, guessed) = assets.used_context(self.place.context, None)?;
        let Seen { kind, rows, .. } = self.seen;
        let facts = ModelFacts {
            task: kind.task,
            context,
            bytes_per_token: 0,
            chat: false,
            samples: false,
            notes: guess((context, guessed)).into_iter().chain(packed).collect(),
        };
        let vocabulary = self.vocabulary;
        Ok((Encoder { session, vocabulary, output: kind.output, rows, context }, facts))
    }
}

fn notes(decoder: &dyn Decoder, context: (usize, bool)) -> Vec<String> {
    let none =
        |it| format!("no cache is used, because {it}: each token reads the whole text again");
    let mut notes: Vec<String> = decoder.no_cache().map(none).into_iter().collect();
    notes.extend(guess(context));
    notes
}

fn guess((context, guessed): (usize, bool)) -> Option<String> {
    let note = format!("no file says how many tokens the model reads: {context} are assumed");
    guessed.then_some(note)
}

/// Every token that ends an answer: by the files, the tokenizer's too, and what the chat template puts behind one.
fn ends(
    assets: &Assets,
    vocabulary: &Vocabulary,
    template: Option<&ChatTemplate>,
) -> Result<Vec<u32>, AnswerError> {
    let mut ends = assets.ends();
    let own = &assets.tokenizer_fields["eos_token"];
    let own = own.as_str().or(own["content"].as_str());
    ends.extend(own.and_then(|it| vocabulary.id(it)));
    if let Some(after) = template.and_then(ChatTemplate::after_answer) {
        let first = vocabulary.encode(&after, false)?.first().copied();
        ends.extend(first.filter(|it| vocabulary.is_special(*it)));
    }
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

/// An error if the model has no vector for one of these tokens.
pub(super) fn check_rows(
    ids: &[u32],
    rows: Option<usize>,
    vocabulary: &Vocabulary,
) -> Result<(), AnswerError> {
    let Some(rows) = rows else { return Ok(()) };
    let Some(&id) = ids.iter().find(|it| **it as usize >= rows) else { return Ok(()) };
    let (tokenizer, input) = (Path::to_owned(vocabulary.file()), "input_ids".to_owned());
    Err(DataError::OtherTokenizer { tokenizer, input, id, rows }.into())
}
