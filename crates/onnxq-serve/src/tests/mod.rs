//! The server from outside: scripted models behind a real port.

mod access;
mod answers;
mod budget;
mod faults;
mod queues;
mod server;
