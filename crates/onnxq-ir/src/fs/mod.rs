//! Files, as far as systems differ: reading and writing at offsets, what tells files apart, and
//! files that replace others in one step.
//!
//! Beside these, only the channel to a worker names `std::os::unix` or `std::os::windows`.

mod leftover;
mod lock;
mod nearby;
mod open;
mod position;
mod replace;
mod scratch;

pub use self::{
    leftover::{mark_in_use, remove_leftovers, remove_old_folders},
    lock::{FolderLock, lock_folder, open_alone},
    nearby::{missing_hint, read_code, read_hint},
    open::{
        Stamp, available_space, links, map, open_file, open_regular, read_ahead, read_file,
        read_text,
    },
    position::{read_exact_at, write_all_at},
    replace::{Replacement, replace},
    scratch::ScratchFolder,
};
