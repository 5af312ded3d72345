//! Small real models: every way to remember gives the same answers, and nothing depends on what was
//! asked before.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::engine::testing::runtime;
use onnxq_formats::{Checkpoint, Form, build};
use onnxq_ir::{
    ctx::Ctx,
    diag::{Code, Diagnostic},
    onnx::{self, ExternalPolicy, SaveOptions},
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// The trained language model as one of its exporters wrote it.
fn trained(file: &str) -> Model {
    let model = fixtures().join("slm-fixture").join(file);
    Model::load(&Place { model, ..Place::default() }, &runtime()).unwrap()
}

/// A checkpoint of random weights as a folder with a model of this form.
fn built(name: &str, form: Form) -> tempfile::TempDir {
    let source = fixtures().join("checkpoints").join(name);
    let checkpoint = Checkpoint::open(&source, ExternalPolicy::default()).unwrap();
    let loaded = build(&checkpoint, form).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (place, options, ctx) = (at("model.onnx"), SaveOptions::default(), Ctx::silent());
    onnx::save(&loaded.model, &place, &options, Some(&loaded.files), &ctx).unwrap();
    for name in ["config.json", "modules.json", "sentence_bert_config.json"] {
        let _ = fs::copy(source.join(name), at(name));
    }
    if source.join("1_Pooling").is_dir() {
        fs::create_dir(at("1_Pooling")).unwrap();
        fs::copy(source.join("1_Pooling/config.json"), at("1_Pooling/config.json")).unwrap();
    }
    fs::copy(fixtures().join("slm-fixture/tokenizer.json"), at("tokenizer.json")).unwrap();
    folder
}

fn loaded(folder: &tempfile::TempDir) -> Model {
    let model = folder.path().to_owned();
    Model::load(&Place { model, ..Place::default() }, &runtime()).unwrap()
}

fn request(prompt: Prompt, max_tokens: usize) -> Generate {
    Generate {
        prompt,
        sampling: Sampling::default(),
        max_tokens: Some(max_tokens),
        stop: Vec::new(),
        logprobs: Some(2),
        echo: false,
    }
}

/// The text, its tokens with their likelihoods, and how it ended.
fn answer(model: &mut Model, request: &Generate) -> (String, Vec<TokenLogprob>, Event) {
    let (mut text, mut tokens, mut last) = (String::new(), Vec::new(), None);
    let mut on = |event: Event| match event {
        Event::Text { text: more, logprobs } => {
            text += &more;
            tokens.extend(logprobs);
        }
        done => last = Some(done),
    };
    model.generate(request, &Default::default(), &mut on).unwrap();
    (text, tokens, last.unwrap())
}

fn ids(tokens: &[TokenLogprob]) -> Vec<u32> {
    tokens.iter().map(|it| it.id).collect()
}

fn finished(event: &Event) -> (Finish, Usage) {
    match event {
        Event::Done { finish, usage, .. } => (*finish, *usage),
        Event::Text { .. } => panic!("not the end"),
    }
}

const STORY: &str = "In the morning the old man went down to the sea";

#[test]
fn a_model_without_a_cache_says_the_same_as_one_with_it() {
    let (mut plain, mut cached) = (trained("model.onnx"), trained("model_with_past.onnx"));
    assert!(plain.facts().notes[0].contains("no cache"), "{:?}", plain.facts());
    assert!(cached.facts().notes.is_empty() && cached.facts().bytes_per_token == 4 * 2 * 64 * 4);
    assert_eq!((cached.facts().context, cached.facts().chat), (256, false));
    let request = request(Prompt::Text(STORY.into()), 24);
    let (text, tokens, last) = answer(&mut cached, &request);
    let (same, others, _) = answer(&mut plain, &request);
    assert_eq!((&same, ids(&others)), (&text, ids(&tokens)));
    let (finish, usage) = finished(&last);
    assert_eq!((finish, usage.completion_tokens, tokens.len()), (Finish::Length, 24, 24));
    // The likelihood of a greedy token is the highest one.
    assert!(tokens.iter().all(|it| it.top[0].id == it.id && it.logprob <= Some(0.0)));
    assert_eq!(tokens.iter().map(|it| &*it.token).collect::<String>(), text);
}

#[test]
fn one_buffer_says_the_same_as_a_growing_cache() {
    for name in ["llama", "gemma3", "phi3"] {
        let [mut grows, mut shares] =
            [Form::Standard, Form::GroupQuery].map(|form| loaded(&built(name, form)));
        // Longer than a chunk and than the first windows.
        let prompt = Prompt::Ids((0..90).map(|it| 3 + it * 7 % 250).collect());
        let request = request(prompt, 24);
        let (text, tokens, _) = answer(&mut grows, &request);
        let (same, others, _) = answer(&mut shares, &request);
        assert_eq!((&same, ids(&others)), (&text, ids(&tokens)), "{name}");
        let near = |a: &TokenLogprob, b: &TokenLogprob| {
            (a.logprob.unwrap() - b.logprob.unwrap()).abs() < 1e-3
        };
        assert!(tokens.iter().zip(&others).all(|(a, b)| near(a, b)), "{name}");
    }
}

/// Bit for bit, for both kinds of caches.
#[test]
fn answers_do_not_depend_on_earlier_requests() {
    for form in [Form::Standard, Form::GroupQuery] {
        let folder = built("llama", form);
        let (mut fresh, mut used) = (loaded(&folder), loaded(&folder));
        let long: Vec<u32> = (0..100).map(|it| 3 + it * 11 % 250).collect();
        let other: Vec<u32> = long[..80].iter().copied().chain([9, 8, 7]).collect();
        answer(&mut used, &request(Prompt::Ids(long.clone()), 20));
        let asked = request(Prompt::Ids(other), 20);
        let (_, expected, first) = answer(&mut fresh, &asked);
        let (_, tokens, again) = answer(&mut used, &asked);
        assert_eq!(tokens, expected);
        assert_eq!(finished(&first).1.cached_tokens, 0);
        assert_eq!(finished(&again).1.cached_tokens, 64);
        let (_, tokens, again) = answer(&mut used, &asked);
        assert_eq!((tokens, finished(&again).1.cached_tokens), (expected, 64));
    }
}

#[test]
fn a_prompt_says_how_likely_its_own_tokens_were() {
    let mut model = trained("model_with_past.onnx");
    let asked = Generate { echo: true, ..request(Prompt::Text(STORY.into()), 0) };
    let (text, tokens, last) = answer(&mut model, &asked);
    assert_eq!(text, STORY);
    assert_eq!(tokens[0].logprob, None);
    assert!(tokens[1..].iter().all(|it| it.logprob.unwrap() < 0.0 && it.top.len() == 2));
    let (finish, usage) = finished(&last);
    assert_eq!((finish, usage.prompt_tokens), (Finish::Length, tokens.len()));
    // The same numbers as of a model that reads everything at once.
    let (_, others, _) = answer(&mut trained("model.onnx"), &asked);
    for (a, b) in tokens.iter().zip(&others).skip(1) {
        assert!((a.logprob.unwrap() - b.logprob.unwrap()).abs() < 1e-3);
    }
}

#[test]
fn an_answer_ends_where_it_shall() {
    let mut model = trained("model_with_past.onnx");
    let whole = request(Prompt::Text(STORY.into()), 24);
    let (text, _, _) = answer(&mut model, &whole);
    let middle = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
    let stop = text[middle..middle + 3].to_owned();
    let (ended, tokens, last) =
        answer(&mut model, &Generate { stop: vec![stop.clone()], ..whole.clone() });
    assert_eq!(ended, text[..text.find(&stop).unwrap()]);
    assert_eq!(finished(&last).0, Finish::Stop);
    assert!(tokens.iter().map(|it| it.token.len()).sum::<usize>() <= ended.len() + 8);
    let error = |request: &Generate| {
        let mut model = trained("model_with_past.onnx");
        model.generate(request, &Default::default(), &mut |_| {}).unwrap_err()
    };
    let long = error(&request(Prompt::Ids(vec![5; 250]), 20));
    assert_eq!(long.code(), Code::E625);
    let text = "prompt of 250 tokens and 20 of the answer exceed the context of 256";
    assert_eq!(long.to_string(), text);
    assert_eq!(long.hint().unwrap(), "at most 6 more tokens fit");
    assert_eq!(error(&request(Prompt::Ids(vec![5; 256]), 1)).code(), Code::E625);
    assert_eq!(error(&request(Prompt::Ids(vec![5000]), 1)).code(), Code::E623);
    assert_eq!(error(&request(Prompt::Chat(Vec::new()), 1)).code(), Code::E628);
    let message = Message { role: "user".into(), content: "hi".into() };
    assert_eq!(error(&request(Prompt::Chat(vec![message]), 1)).code(), Code::E626);
    // As many as there is room for.
    let full = Generate { max_tokens: None, ..request(Prompt::Ids(vec![5; 250]), 0) };
    assert_eq!(finished(&answer(&mut model, &full).2).1.completion_tokens, 6);
}

#[test]
fn a_seed_decides() {
    let mut model = trained("model_with_past.onnx");
    let mut with = |seed| {
        let sampling = Sampling { temperature: Some(1.5), seed: Some(seed), ..Sampling::default() };
        let asked = Generate { sampling, ..request(Prompt::Text(STORY.into()), 16) };
        answer(&mut model, &asked).0
    };
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
}

#[test]
fn a_stop_ends_an_answer_and_the_model_goes_on() {
    for form in [Form::Standard, Form::GroupQuery] {
        let mut model = loaded(&built("llama", form));
        let asked = request(Prompt::Ids(vec![5; 100]), 20);
        let (_, expected, _) = answer(&mut model, &asked);
        let stop = crate::engine::Stop::default();
        stop.stop();
        let mut events = Vec::new();
        model.generate(&asked, &stop, &mut |it| events.push(it)).unwrap();
        assert_eq!(finished(events.last().unwrap()).0, Finish::Cancelled);
        // After some tokens: what was written is there.
        let stop = crate::engine::Stop::default();
        let mut events = Vec::new();
        let mut on = |event: Event| {
            events.push(event);
            stop.stop();
        };
        model.generate(&asked, &stop, &mut on).unwrap();
        let (finish, usage) = finished(events.last().unwrap());
        assert!(finish == Finish::Cancelled && usage.completion_tokens < 4, "{events:?}");
        assert_eq!(answer(&mut model, &asked).1, expected);
    }
}

/// A whole text in one run, which takes long without a cache.
#[test]
fn a_run_ends_inside_of_an_operator() {
    let mut model = trained("model.onnx");
    let asked = request(Prompt::Ids(vec![5; 200]), 56);
    let stop = crate::engine::Stop::default();
    let other = stop.clone();
    let watch = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        other.stop();
    });
    let (began, mut last) = (Instant::now(), None);
    model.generate(&asked, &stop, &mut |it| last = Some(it)).unwrap();
    watch.join().unwrap();
    let (finish, _) = finished(&last.unwrap());
    assert_eq!(finish, Finish::Cancelled, "{:?}", began.elapsed());
    assert_eq!(
        finished(&answer(&mut model, &request(Prompt::Ids(vec![5; 9]), 2)).2).0,
        Finish::Length
    );
}

#[test]
fn texts_become_vectors_and_labels() {
    let mut minilm = loaded(&built("minilm", Form::Standard));
    assert_eq!(minilm.facts().task, Task::Embed);
    let texts = ["a b".to_owned(), "c".to_owned()];
    let vectors = minilm.embed(&texts).map(|it| it.vectors);
    // The tokenizer is that of another model, with more tokens.
    assert_eq!(vectors.unwrap_err().code(), Code::E623);
    let texts = ["!!".to_owned(), "\"#".to_owned()];
    let vectors = minilm.embed(&texts).unwrap();
    let norm = |it: &Vec<f32>| it.iter().map(|it| it * it).sum::<f32>().sqrt();
    assert!(vectors.vectors.iter().all(|it| it.len() == 64 && (norm(it) - 1.0).abs() < 1e-5));
    assert_eq!(vectors.vectors[0], minilm.embed(&texts[..1]).unwrap().vectors[0]);
    let error =
        minilm.generate(&request(Prompt::Text("!".into()), 1), &Default::default(), &mut |_| {});
    assert_eq!(error.unwrap_err().code(), Code::E627);

    let mut classifier = loaded(&built("bert-classifier", Form::Standard));
    assert_eq!(classifier.facts().task, Task::Classify);
    let labelled = classifier.classify(&texts).unwrap();
    let sum: f32 = labelled[0].labels.iter().map(|it| it.score).sum();
    assert!(labelled[0].labels.len() == 3 && (sum - 1.0).abs() < 1e-5);
    let mut ner = loaded(&built("bert-ner", Form::Standard));
    let text = ["\"#".repeat(20)];
    let spans = ner.classify(&text).unwrap().remove(0).spans;
    assert!(spans.iter().all(|it| text[0][it.start..it.end] == it.text), "{spans:?}");
    let error = ner.classify(&["\"#".repeat(65)]).unwrap_err();
    assert_eq!(error.to_string(), "text of 130 tokens exceeds the context of 64");
}
