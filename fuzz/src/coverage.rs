//! Which edges of instrumented code ran, if the program was built by `fuzz/guided`.

use std::{
    ptr,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed},
};

/// Counters of the whole program: one byte for each edge.
static START: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static LEN: AtomicUsize = AtomicUsize::new(0);

/// LLVM's SanitizerCoverage calls this before `main`, for each object file with the same section.
///
/// # Safety
/// `start..stop` must be writable for as long as the program runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    START.store(start, Relaxed);
    LEN.store(stop.addr() - start.addr(), Relaxed);
}

/// What has been seen of each edge.
pub struct Coverage {
    seen: Vec<u8>,
}

impl Coverage {
    pub fn new() -> Coverage {
        Coverage { seen: vec![0; LEN.load(Relaxed)] }
    }

    /// The number of edges there are: 0 if the program is not instrumented.
    pub fn edges(&self) -> usize {
        self.seen.len()
    }

    /// The number of edges that ran.
    pub fn reached(&self) -> usize {
        self.seen.iter().filter(|it| **it != 0).count()
    }

    /// Reads the counters of the last input, and clears them. Whether an edge ran that had not
    /// run before, or by an order of magnitude more often.
    pub fn take(&mut self) -> bool {
        if self.seen.is_empty() {
            return false;
        }
        // SAFETY: the section is as long as LLVM said, and other threads only count in it: an
        // input's own threads have ended, and a lost count loses at most an input.
        let counters =
            unsafe { std::slice::from_raw_parts_mut(START.load(Relaxed), self.seen.len()) };
        let mut news = false;
        let (words, rest) = counters.as_chunks_mut::<8>();
        let (seen, seen_rest) = self.seen.as_chunks_mut::<8>();
        for (word, seen) in words.iter_mut().zip(seen) {
            if *word != [0; 8] {
                word.iter().zip(seen).for_each(|(count, seen)| news |= mark(*count, seen));
                *word = [0; 8];
            }
        }
        rest.iter().zip(seen_rest).for_each(|(count, seen)| news |= mark(*count, seen));
        rest.fill(0);
        news
    }
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage::new()
    }
}

/// Sets the bit for the magnitude of a count.
fn mark(count: u8, seen: &mut u8) -> bool {
    let bit = match count {
        0 => return false,
        1..=3 => 1 << (count - 1),
        4..=7 => 1 << 3,
        8..=15 => 1 << 4,
        16..=31 => 1 << 5,
        32..=127 => 1 << 6,
        128.. => 1 << 7,
    };
    let news = *seen & bit == 0;
    *seen |= bit;
    news
}
