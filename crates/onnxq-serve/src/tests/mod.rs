//! The server from outside: scripted models behind a real port.

mod access;
mod answers;
mod budget;
mod faults;
#[cfg(target_os = "linux")]
mod page;
mod queues;
mod server;
