//! Several sessions of one model that take turns: a run is ready when it is asked for.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use super::{EngineError, IoInfo, LeftOut, Session};
use onnxq_ir::tensor::Tensor;

type Outputs = Vec<(String, Tensor)>;

/// A run of a model on the batch with this number.
pub type RunBatch<'a> = dyn Fn(&mut dyn Session, usize) -> Result<Outputs, EngineError> + Sync + 'a;

/// Lets `sessions`, of one model, run the batches `0..count` side by side, and gives `read` a session
/// that answers its runs with their outputs, in the batches' order, whatever inputs it is given.
///
/// A session waits until its outputs are taken, so that few of them are in memory.
pub fn ahead<T>(
    sessions: Vec<Box<dyn Session + '_>>,
    count: usize,
    run: &RunBatch<'_>,
    read: impl FnOnce(&mut dyn Session) -> T,
) -> T {
    let (inputs, outputs, left_out) = match sessions.first() {
        Some(it) => (it.inputs().to_vec(), it.outputs().to_vec(), it.left_out().to_vec()),
        None => Default::default(),
    };
    let next = Mutex::new(0..count);
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(sessions.len());
        for session in sessions {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || work(session, next, run, &sender));
        }
        drop(sender);
        let mut ahead =
            Ahead { inputs, outputs, left_out, receiver, early: BTreeMap::new(), at: 0 };
        read(&mut ahead)
    })
}

type Done = (usize, Result<Outputs, EngineError>);

fn work(
    mut session: Box<dyn Session + '_>,
    next: &Mutex<Range<usize>>,
    run: &RunBatch<'_>,
    sender: &SyncSender<Done>,
) {
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    while let Some(at) = take() {
        // Nobody listens any more once reading has ended.
        if sender.send((at, run(&mut *session, at))).is_err() {
            return;
        }
    }
}

struct Ahead {
    inputs: Vec<IoInfo>,
    outputs: Vec<IoInfo>,
    left_out: Vec<LeftOut>,
    receiver: Receiver<Done>,
    /// What came before its turn.
    early: BTreeMap<usize, Result<Outputs, EngineError>>,
    at: usize,
}

impl Session for Ahead {
    fn inputs(&self) -> &[IoInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[IoInfo] {
        &self.outputs
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn run(&mut self, _: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
        let at = self.at;
        self.at += 1;
        loop {
            if let Some(done) = self.early.remove(&at) {
                return done;
            }
            // Each batch is sent once, so the sessions end only when all were taken.
            let Ok((done, outputs)) = self.receiver.recv() else { return Ok(Vec::new()) };
            self.early.insert(done, outputs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of the batch as its only output.
    struct Counting;

    impl Session for Counting {
        fn inputs(&self) -> &[IoInfo] {
            &[]
        }

        fn outputs(&self) -> &[IoInfo] {
            &[]
        }

        fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
            Ok(vec![("y".to_owned(), inputs[0].1.clone())])
        }
    }

    fn run(session: &mut dyn Session, at: usize) -> Result<Outputs, EngineError> {
        // The first ones take longest.
        thread::sleep(std::time::Duration::from_millis(8u64.saturating_sub(at as u64)));
        session.run(&[("x", &Tensor::scalar(at as f32))])
    }

    fn sessions(count: usize) -> Vec<Box<dyn Session>> {
        (0..count).map(|_| Box::new(Counting) as Box<dyn Session>).collect()
    }

    #[test]
    fn outputs_come_in_the_order_of_the_batches() {
        for count in [1, 3] {
            let seen: Vec<f32> = ahead(sessions(count), 20, &run, |it| {
                let mut one = || it.run(&[]).unwrap()[0].1.to_f32().unwrap()[0];
                (0..20).map(|_| one()).collect()
            });
            assert_eq!(seen, (0..20).map(|it| it as f32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn who_stops_reading_waits_for_nobody() {
        let first = ahead(sessions(2), 1000, &run, |it| it.run(&[]).is_ok());
        assert!(first);
    }
}
