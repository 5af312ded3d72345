//! A timer of consumed time, a handler that notes the instruction pointer, and the mapped code.

use std::{
    ffi::{OsStr, c_int, c_void},
    fs, mem,
    ops::Range,
    path::{Path, PathBuf},
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
};

use super::{
    super::{Located, locate::library_version},
    KernelSamples, decode,
};

/// Places that are kept; beyond them, the oldest are replaced. At 250 in a second, four minutes.
const CAPACITY: usize = 1 << 16;
/// Asked for; the kernel's clock makes it 1 to 10 ms of time that this process computes.
const INTERVAL_US: i64 = 1000;
/// Code before and after a place that counts as the same loop.
const AROUND: usize = 48;

/// Written by the handler, which may neither allocate nor lock.
static PLACES: [AtomicU64; CAPACITY] = [const { AtomicU64::new(0) }; CAPACITY];
static NEXT: AtomicUsize = AtomicUsize::new(0);
static IS_ON: AtomicBool = AtomicBool::new(false);
/// There is one timer and one handler per process.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    if !IS_ON.load(Relaxed) || context.is_null() {
        return;
    }
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: with SA_SIGINFO the kernel passes a `ucontext_t`, whose machine context begins with
    // the general registers, REG_RIP among them, in every C library.
    let place = unsafe {
        let registers = (&raw const (*context).uc_mcontext).cast::<u64>();
        *registers.add(libc::REG_RIP as usize)
    };
    PLACES[NEXT.fetch_add(1, Relaxed) % CAPACITY].store(place, Relaxed);
}

/// Takes samples of this process, all threads together, while it is on. Whoever had the signal
/// and the timer before gets them back when this goes.
pub(crate) struct Sampler {
    /// What was there before.
    handler: libc::sigaction,
    timer: libc::itimerval,
    is_installed: bool,
}

impl Sampler {
    /// A sampler that is still off. `None` if there is one already, or the system refuses.
    pub(crate) fn start() -> Option<Sampler> {
        if IS_TAKEN.swap(true, SeqCst) {
            return None;
        }
        IS_ON.store(false, SeqCst);
        NEXT.store(0, SeqCst);
        let handler = handle(&our_handler()).or_else(release)?;
        let timer = set_timer(&every(INTERVAL_US)).or_else(|| {
            handle(&handler);
            release()
        })?;
        Some(Sampler { handler, timer, is_installed: true })
    }

    /// From now on samples count. Costs less than a microsecond.
    pub(crate) fn resume(&self) {
        IS_ON.store(true, SeqCst);
    }

    pub(crate) fn pause(&self) {
        IS_ON.store(false, SeqCst);
    }

    /// Samples until now.
    pub(crate) fn taken(&self) -> usize {
        NEXT.load(SeqCst)
    }

    /// What the samples until now in the code of the loaded `library` lie beside.
    pub(crate) fn seen(&self, library: &Located) -> KernelSamples {
        let taken = NEXT.load(SeqCst);
        let places = PLACES[..taken.min(CAPACITY)].iter().map(|it| it.load(Relaxed) as usize);
        let places: Vec<usize> = places.collect();
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        count(&places, &code(&maps, &library.path))
    }

    fn stop(&mut self) {
        IS_ON.store(false, SeqCst);
        if !mem::take(&mut self.is_installed) {
            return;
        }
        set_timer(&every(0));
        // A signal that is still on its way would end the process once nobody handles it: to
        // ignore signals discards those.
        let mut ignore = our_handler();
        ignore.sa_sigaction = libc::SIG_IGN;
        ignore.sa_flags = 0;
        handle(&ignore);
        handle(&self.handler);
        if self.timer.it_value.tv_sec != 0 || self.timer.it_value.tv_usec != 0 {
            set_timer(&self.timer);
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop();
        IS_TAKEN.store(false, SeqCst);
    }
}

fn release<T>() -> Option<T> {
    IS_TAKEN.store(false, SeqCst);
    None
}

fn our_handler() -> libc::sigaction {
    // SAFETY: all fields are integers, a set of bits and an optional pointer; zero is valid.
    let mut it: libc::sigaction = unsafe { mem::zeroed() };
    it.sa_sigaction = note as *const () as usize;
    // Interrupted calls go on by themselves.
    it.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    it
}

/// Installs a handler of SIGPROF and returns the one before.
fn handle(new: &libc::sigaction) -> Option<libc::sigaction> {
    let mut old = mem::MaybeUninit::uninit();
    // SAFETY: `new` is a whole `sigaction` whose handler only uses atomics; `old` has room for one
    // and is filled if the call succeeds.
    unsafe {
        let done = libc::sigaction(libc::SIGPROF, new, old.as_mut_ptr()) == 0;
        done.then(|| old.assume_init())
    }
}

fn every(microseconds: i64) -> libc::itimerval {
    let interval = libc::timeval { tv_sec: 0, tv_usec: microseconds };
    libc::itimerval { it_interval: interval, it_value: interval }
}

/// Sets the timer of consumed time and returns the one before.
fn set_timer(new: &libc::itimerval) -> Option<libc::itimerval> {
    let mut old = mem::MaybeUninit::uninit();
    // SAFETY: `new` is a whole `itimerval`; `old` has room for one and is filled if the call
    // succeeds.
    unsafe {
        let done = libc::setitimer(libc::ITIMER_PROF, new, old.as_mut_ptr()) == 0;
        done.then(|| old.assume_init())
    }
}

/// Addresses of the readable code of a library, as `/proc/self/maps` lists them.
fn code(maps: &str, library: &Path) -> Vec<Range<usize>> {
    // A bare name was resolved by the system's loader; any ONNX Runtime is that one.
    let real = library.components().count() > 1;
    let real = real.then(|| library.canonicalize().unwrap_or_else(|_| library.to_owned()));
    let is_it = |path: &Path| match &real {
        Some(real) => path == real,
        None => {
            let name = path.file_name().and_then(OsStr::to_str);
            name.is_some_and(|it| library_version(it).is_some())
        }
    };
    let line = |it: &str| -> Option<(Range<usize>, PathBuf)> {
        // `7f…-7f… r-xp 00000000 fe:01 1234   /path that may have spaces`.
        let (range, rest) = it.split_once(' ')?;
        let (access, rest) = rest.split_once(' ')?;
        let path = rest.find('/').map(|at| rest[at..].trim_end_matches(" (deleted)"))?;
        let (start, end) = range.split_once('-')?;
        let number = |it: &str| usize::from_str_radix(it, 16).ok();
        access.starts_with("r-x").then_some(())?;
        Some((number(start)?..number(end)?, PathBuf::from(path)))
    };
    let list = maps.lines().filter_map(line).filter(|it| is_it(&it.1));
    list.map(|it| it.0).collect()
}

fn count(places: &[usize], code: &[Range<usize>]) -> KernelSamples {
    let mut counts = KernelSamples { taken: places.len(), ..KernelSamples::default() };
    for place in places {
        let Some(range) = code.iter().find(|it| it.contains(place)) else { continue };
        let start = place.saturating_sub(AROUND).max(range.start);
        let end = (place + AROUND).min(range.end);
        // SAFETY: the bytes lie in a readable mapping of a library's code, which nobody writes to
        // and which is never unloaded: sessions of it may exist until the process ends.
        let bytes =
            unsafe { std::slice::from_raw_parts(ptr::with_exposed_provenance(start), end - start) };
        let found = decode::find(bytes);
        counts.samples += 1;
        counts.avx512_vnni += usize::from(found.avx512_vnni);
        counts.avx512_vnni_512 += usize::from(found.avx512_vnni_512);
        counts.avx_vnni += usize::from(found.avx_vnni);
        counts.amx += usize::from(found.amx);
        counts.vpmaddubsw += usize::from(found.vpmaddubsw);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current() -> (usize, c_int, i64) {
        let nothing = ptr::null();
        let mut handler = our_handler();
        let mut timer = every(7);
        // SAFETY: both calls only fill what they are given.
        unsafe {
            libc::sigaction(libc::SIGPROF, nothing, &raw mut handler);
            libc::getitimer(libc::ITIMER_PROF, &raw mut timer);
        }
        // The C library adds a flag of its own.
        let flags = handler.sa_flags & (libc::SA_SIGINFO | libc::SA_RESTART);
        (handler.sa_sigaction, flags, timer.it_interval.tv_usec)
    }

    /// One test, as there is one timer per process.
    #[test]
    fn a_sampler_sees_our_own_code_and_leaves_no_trace() {
        let before = current();
        let sampler = Sampler::start().unwrap();
        assert_ne!(current(), before);
        assert!(Sampler::start().is_none(), "one at a time");
        let spin = || {
            let start = std::time::Instant::now();
            while NEXT.load(SeqCst) < 5 && start.elapsed().as_secs() < 1 {
                std::hint::black_box(start);
            }
        };
        spin();
        assert_eq!(NEXT.load(SeqCst), 0, "it begins off");
        sampler.resume();
        spin();
        sampler.pause();
        let executable = std::env::current_exe().unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!code(&maps, &executable).is_empty());
        let located =
            Located { path: executable, version: String::new(), how: crate::engine::How::Option };
        let counts = sampler.seen(&located);
        assert!(counts.taken >= 5, "{counts:?}");
        drop(sampler);
        assert_eq!(current(), before);
        drop(Sampler::start().unwrap());
        assert_eq!(current(), before);
    }

    #[test]
    fn the_code_of_a_library_is_found_among_mappings() {
        let maps = "\
7f0000000000-7f0000001000 r--p 00000000 fe:01 11   /opt/a b/libonnxruntime.so.1.31.1
7f0000001000-7f0000003000 r-xp 00001000 fe:01 11   /opt/a b/libonnxruntime.so.1.31.1
7f0000003000-7f0000004000 r-xp 00000000 fe:01 12   /opt/libonnxruntime_providers_shared.so
7f0000005000-7f0000006000 --xp 00000000 fe:01 13   /opt/a b/libonnxruntime.so.1.31.1
7f0000007000-7f0000008000 r-xp 00000000 00:00 0    [vdso]
broken";
        let only = |library: &str| {
            let list = code(maps, Path::new(library));
            (list.len(), list[0].start, list[0].end)
        };
        let expected = (1, 0x7f00_0000_1000, 0x7f00_0000_3000);
        assert_eq!(only("/opt/a b/libonnxruntime.so.1.31.1"), expected);
        assert_eq!(only("libonnxruntime.so"), expected);
        assert!(code(maps, Path::new("/opt/other.so")).is_empty());
    }

    #[test]
    fn places_at_the_ends_of_a_mapping_read_nothing_outside() {
        let mut page = [0x90u8; 64];
        page[58..].copy_from_slice(&[0x62, 0xf2, 0x6d, 0x48, 0x50, 0xcb]);
        let start = page.as_ptr().expose_provenance();
        let code = std::iter::once(start..start + page.len()).collect::<Vec<_>>();
        let counts = count(&[start, start + 63, start + 64, start.wrapping_sub(1)], &code);
        let expected =
            KernelSamples { taken: 4, samples: 2, avx512_vnni: 1, avx512_vnni_512: 1, ..counts };
        assert_eq!(counts, expected);
        assert_eq!((counts.avx_vnni, counts.amx, counts.vpmaddubsw), (0, 0, 0));
    }
}
