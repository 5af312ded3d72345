// Loads a folder with transformers.js and lets it answer.
//
// usage: node transformersjs.mjs FOLDER DTYPE [COUNT [TEXT…]]
//
// DTYPE names the file: fp32, fp16, q8, int8, uint8, q4, q4f16, bnb4. The pipeline follows
// `architectures` of config.json. A decoder answers COUNT greedy tokens (default 16), as a chat if it
// has a template; texts of different length alone and as one batch, padded at the left, where a float
// model must say the same.
// Encoders print what they make of two texts. Exits with 1 if something fails or differs.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// The package is looked for in the folder where the command runs, too.
const require = createRequire(pathToFileURL(path.join(process.cwd(), 'x.js')));
const { env, pipeline } = require('@huggingface/transformers');

const [folder, dtype, count, ...given] = process.argv.slice(2);
env.localModelPath = path.dirname(path.resolve(folder)) + path.sep;
env.allowRemoteModels = false;
const config = JSON.parse(fs.readFileSync(path.join(folder, 'config.json')));
const kind = config.architectures[0];
const task = /ForCausalLM|LMHeadModel/.test(kind) ? 'text-generation'
    : kind.endsWith('ForSequenceClassification') ? 'text-classification'
    : kind.endsWith('ForTokenClassification') ? 'token-classification' : 'feature-extraction';
const texts = given.length ? given : ['The capital of France is', 'One, two, three, four, five, six, seven,'];
const options = { dtype, device: 'cpu', session_options: { intraOpNumThreads: 1 } };
const pipe = await pipeline(task, path.basename(path.resolve(folder)), options);
let failed = 0;
if (task === 'text-generation') {
    const how = { max_new_tokens: Number(count ?? 16), do_sample: false };
    if (pipe.tokenizer.chat_template) {
        const answer = await pipe([{ role: 'user', content: texts[0] }], how);
        console.log('chat:', JSON.stringify(answer[0].generated_text.at(-1).content));
    }
    pipe.tokenizer.padding_side = 'left';
    const ask = async (text) => {
        const { input_ids, attention_mask } = pipe.tokenizer(text, { padding: true });
        const made = await pipe.model.generate({ input_ids, attention_mask, ...how });
        return made.tolist().map((it) => it.slice(input_ids.dims[1]));
    };
    const batch = texts.length > 1 ? await ask(texts) : [];
    for (const [i, text] of texts.entries()) {
        const [made] = await ask(text);
        console.log(pipe.tokenizer(text).input_ids.tolist()[0].join(','), '->', made.join(' '));
        console.log(JSON.stringify(pipe.tokenizer.decode(made.map(Number))));
        // Rows that ended go on in a batch.
        if (batch.length && made.some((it, j) => it !== batch[i][j])) {
            console.log('  in a batch: DIFFERENT:', batch[i].join(' '));
            // With 8-bit activations the rows of a batch round each other otherwise.
            failed = ['fp32', 'fp16'].includes(dtype) ? 1 : 0;
        }
    }
} else if (task === 'feature-extraction') {
    const made = await pipe(texts, { pooling: 'mean', normalize: true });
    for (const row of made.tolist()) console.log(made.dims, row.slice(0, 4));
} else {
    for (const it of await pipe(texts)) console.log(JSON.stringify(it));
}
process.exit(failed);
