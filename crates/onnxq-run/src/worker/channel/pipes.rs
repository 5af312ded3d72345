//! Two pipes: the child's standard input and output.

use std::{
    io::{self, Read, Write},
    process::{Child, Command, Stdio},
};

use bytes::Bytes;

use super::{Frame, Prefix, read_bytes, write_parts};

pub(in super::super) struct Sender(Box<dyn Write + Send>);

pub(in super::super) struct Receiver(Box<dyn Read + Send>);

/// The end of a child.
pub(in super::super) fn own() -> io::Result<(Sender, Receiver)> {
    Ok((Sender(Box::new(io::stdout())), Receiver(Box::new(io::stdin()))))
}

/// Starts a child that has the other end.
pub(in super::super) fn spawn(mut command: Command) -> io::Result<(Child, Sender, Receiver)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let missing = || io::Error::other("a child without pipes");
    let sender = Sender(Box::new(child.stdin.take().ok_or_else(missing)?));
    let receiver = Receiver(Box::new(child.stdout.take().ok_or_else(missing)?));
    Ok((child, sender, receiver))
}

impl Sender {
    pub(in super::super) fn send(&mut self, head: &[u8], parts: &[Bytes]) -> io::Result<()> {
        self.0.write_all(&Prefix::new(head, parts, false)?.bytes())?;
        self.0.write_all(head)?;
        write_parts(&mut self.0, parts)?;
        self.0.flush()
    }
}

impl Receiver {
    /// The next frame; `None` once the other side has gone.
    pub(in super::super) fn receive(&mut self) -> io::Result<Option<Frame>> {
        let mut bytes = [0; Prefix::LEN];
        let mut at = 0;
        while at < bytes.len() {
            match self.0.read(&mut bytes[at..]) {
                Ok(0) if at == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => at += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let prefix = Prefix::read(bytes)?;
        let head = read_bytes(&mut self.0, prefix.head.into())?;
        let payload = Bytes::from(read_bytes(&mut self.0, prefix.payload)?);
        Ok(Some(Frame { head, payload }))
    }
}
