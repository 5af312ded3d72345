//! Counts and times, in the text format of Prometheus (version 0.0.4).

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::registry::Listed;
use onnxq_run::answer::Usage;

/// Upper ends of the intervals that times are counted in, in seconds.
const ENDS: [f64; 10] = [0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 120.0];

#[derive(Default)]
pub(crate) struct Metrics {
    pub connections: AtomicUsize,
    pub in_flight: AtomicUsize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// By path, model and status.
    requests: BTreeMap<(&'static str, String, u16), u64>,
    models: BTreeMap<String, OfModel>,
}

#[derive(Default)]
struct OfModel {
    usage: Usage,
    waits: Times,
    answers: Times,
    loads: Times,
    load_failures: u64,
    unloads: u64,
    crashes: u64,
}

#[derive(Default)]
struct Times {
    counts: [u64; ENDS.len()],
    sum: f64,
    count: u64,
}

impl Times {
    fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        for (end, count) in ENDS.iter().zip(&mut self.counts) {
            *count += u64::from(seconds <= *end);
        }
        self.sum += seconds;
        self.count += 1;
    }
}

impl Metrics {
    pub(crate) fn answered(&self, path: &'static str, model: &str, status: u16) {
        *self.counts().requests.entry((path, model.to_owned(), status)).or_default() += 1;
    }

    pub(crate) fn took(&self, model: &str, time: Duration, usage: &Usage) {
        self.model(model, |it| {
            it.answers.add(time);
            it.usage.prompt_tokens += usage.prompt_tokens;
            it.usage.completion_tokens += usage.completion_tokens;
            it.usage.cached_tokens += usage.cached_tokens;
        });
    }

    pub(crate) fn waited(&self, model: &str, time: Duration) {
        self.model(model, |it| it.waits.add(time));
    }

    pub(crate) fn loaded(&self, model: &str, time: Duration) {
        self.model(model, |it| it.loads.add(time));
    }

    pub(crate) fn load_failed(&self, model: &str) {
        self.model(model, |it| it.load_failures += 1);
    }

    pub(crate) fn unloaded(&self, model: &str) {
        self.model(model, |it| it.unloads += 1);
    }

    pub(crate) fn crashed(&self, model: &str) {
        self.model(model, |it| it.crashes += 1);
    }

    fn model(&self, name: &str, change: impl FnOnce(&mut OfModel)) {
        change(self.counts().models.entry(name.to_owned()).or_default());
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything as a page. Names of models need no escaping (`config`).
    pub(crate) fn page(&self, names: &[&str], listed: &[Listed], budget: u64) -> String {
        let mut page = Page::default();
        let number = |it: &AtomicUsize| it.load(Ordering::Relaxed) as f64;
        page.head("onnxq_connections", "gauge", "Connections that are open.");
        page.row("onnxq_connections", "", number(&self.connections));
        page.head("onnxq_requests_in_flight", "gauge", "Requests that are being answered.");
        page.row("onnxq_requests_in_flight", "", number(&self.in_flight));
        page.head("onnxq_memory_budget_bytes", "gauge", "What all models may keep in memory.");
        page.row("onnxq_memory_budget_bytes", "", budget as f64);
        gauges(&mut page, names, listed);
        let counts = self.counts();
        page.head("onnxq_requests_total", "counter", "Requests by path, model and status.");
        for ((path, model, status), count) in &counts.requests {
            let labels = format!("path=\"{path}\",model=\"{model}\",status=\"{status}\"");
            page.row("onnxq_requests_total", &labels, *count as f64);
        }
        of_models(&mut page, &counts.models);
        page.text
    }
}

fn gauges(page: &mut Page, names: &[&str], listed: &[Listed]) {
    type Gauge = (&'static str, &'static str, fn(&Listed) -> f64);
    let rows: [Gauge; 3] = [
        ("onnxq_resident_bytes", "What a model's processes keep in memory.", |it| {
            it.resident as f64
        }),
        ("onnxq_reserved_bytes", "What is set aside for them.", |it| it.reserved as f64),
        ("onnxq_queue_length", "Requests that wait.", |it| it.waiting as f64),
    ];
    for (name, help, value) in rows {
        page.head(name, "gauge", help);
        for (model, it) in names.iter().zip(listed) {
            page.row(name, &format!("model=\"{model}\""), value(it));
        }
    }
    page.head("onnxq_slots", "gauge", "Processes by what they do.");
    for (model, it) in names.iter().zip(listed) {
        for (state, count) in STATES.iter().zip(it.phases) {
            let labels = format!("model=\"{model}\",state=\"{state}\"");
            page.row("onnxq_slots", &labels, count as f64);
        }
    }
}

/// In the order of [`Listed::phases`].
pub(crate) const STATES: [&str; 4] = ["loading", "idle", "busy", "closing"];

fn of_models(page: &mut Page, models: &BTreeMap<String, OfModel>) {
    page.head("onnxq_tokens_total", "counter", "Tokens that were read and written.");
    for (model, it) in models {
        let Usage { prompt_tokens, completion_tokens, cached_tokens } = it.usage;
        let kinds = [
            ("prompt", prompt_tokens),
            ("completion", completion_tokens),
            ("cached", cached_tokens),
        ];
        for (kind, count) in kinds {
            let labels = format!("model=\"{model}\",kind=\"{kind}\"");
            page.row("onnxq_tokens_total", &labels, count as f64);
        }
    }
    type Count = (&'static str, &'static str, fn(&OfModel) -> u64);
    let counts: [Count; 3] = [
        ("onnxq_load_failures_total", "Loads that failed.", |it| it.load_failures),
        ("onnxq_unloads_total", "Processes ended because idle or for their memory.", |it| {
            it.unloads
        }),
        ("onnxq_crashes_total", "Processes that ended while they answered.", |it| it.crashes),
    ];
    for (name, help, value) in counts {
        page.head(name, "counter", help);
        for (model, it) in models {
            page.row(name, &format!("model=\"{model}\""), value(it) as f64);
        }
    }
    type Histogram = (&'static str, &'static str, fn(&OfModel) -> &Times);
    let times: [Histogram; 3] = [
        ("onnxq_queue_wait_seconds", "From a request to its turn.", |it| &it.waits),
        ("onnxq_answer_seconds", "From a request to the end of its answer.", |it| &it.answers),
        ("onnxq_load_seconds", "Loading a model.", |it| &it.loads),
    ];
    for (name, help, value) in times {
        page.head(name, "histogram", help);
        models.iter().for_each(|(model, it)| page.times(name, model, value(it)));
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn row(&mut self, name: &str, labels: &str, value: f64) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }

    fn times(&mut self, name: &str, model: &str, times: &Times) {
        let of = format!("model=\"{model}\"");
        for (end, count) in ENDS.iter().zip(times.counts) {
            self.row(&format!("{name}_bucket"), &format!("{of},le=\"{end}\""), count as f64);
        }
        self.row(&format!("{name}_bucket"), &format!("{of},le=\"+Inf\""), times.count as f64);
        self.row(&format!("{name}_sum"), &of, times.sum);
        self.row(&format!("{name}_count"), &of, times.count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_head_and_histograms_add_up() {
        let metrics = Metrics::default();
        metrics.answered("/v1/models", "", 200);
        metrics.waited("m", Duration::from_millis(30));
        metrics.waited("m", Duration::from_secs(500));
        let page = metrics.page(&[], &[], 1000);
        assert!(
            page.contains("onnxq_requests_total{path=\"/v1/models\",model=\"\",status=\"200\"} 1")
        );
        assert!(page.contains("onnxq_queue_wait_seconds_bucket{model=\"m\",le=\"0.02\"} 0\n"));
        assert!(page.contains("onnxq_queue_wait_seconds_bucket{model=\"m\",le=\"0.05\"} 1\n"));
        assert!(page.contains("onnxq_queue_wait_seconds_bucket{model=\"m\",le=\"+Inf\"} 2\n"));
        assert!(page.contains("onnxq_queue_wait_seconds_count{model=\"m\"} 2\n"));
        let mut heads = Vec::new();
        for line in page.lines() {
            match line.strip_prefix("# TYPE ") {
                Some(rest) => heads.push(rest.split(' ').next().unwrap().to_owned()),
                None if line.starts_with('#') => {}
                None => assert!(line.starts_with(heads.last().unwrap()), "{line}"),
            }
        }
    }
}
