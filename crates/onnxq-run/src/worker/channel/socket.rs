//! One socket in both directions; a file in memory goes along as a descriptor.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::{Frame, Prefix, padded_len, read_bytes, write_parts};

/// Fewer bytes are copied through the socket, which costs less than a file.
const INLINE: u64 = 64 << 10;
/// A child that reads nothing for so long is stuck.
const STUCK: Duration = Duration::from_secs(60);

pub(in super::super) struct Sender(UnixStream);

pub(in super::super) struct Receiver(UnixStream);

/// The end of a child: its standard input.
pub(in super::super) fn own() -> io::Result<(Sender, Receiver)> {
    let socket = UnixStream::from(rustix::io::dup(rustix::stdio::stdin())?);
    Ok((Sender(socket.try_clone()?), Receiver(socket)))
}

/// Starts a child that has the other end.
pub(in super::super) fn spawn(mut command: Command) -> io::Result<(Child, Sender, Receiver)> {
    let (socket, other) = UnixStream::pair()?;
    socket.set_write_timeout(Some(STUCK))?;
    let child = command.stdin(Stdio::from(OwnedFd::from(other))).spawn()?;
    Ok((child, Sender(socket.try_clone()?), Receiver(socket)))
}

impl Sender {
    pub(in super::super) fn send(&mut self, head: &[u8], parts: &[Bytes]) -> io::Result<()> {
        let file = match padded_len(parts) {
            len if len > INLINE => in_memory(parts)?,
            _ => None,
        };
        let prefix = Prefix::new(head, parts, file.is_some())?.bytes();
        self.send_prefix(&prefix, file.as_ref())?;
        self.0.write_all(head)?;
        match file {
            Some(_) => Ok(()),
            None => write_parts(&mut self.0, parts),
        }
    }

    fn send_prefix(&mut self, prefix: &[u8], file: Option<&File>) -> io::Result<()> {
        let fds: Vec<_> = file.iter().map(|it| it.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            beside.push(SendAncillaryMessage::ScmRights(&fds));
        }
        // A signal may come, for instance the sampler's.
        let sent = loop {
            match sendmsg(&self.0, &[IoSlice::new(prefix)], &mut beside, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => continue,
                done => break done?,
            }
        };
        self.0.write_all(&prefix[sent..])
    }
}

impl Receiver {
    /// The next frame; `None` once the other side has gone.
    pub(in super::super) fn receive(&mut self) -> io::Result<Option<Frame>> {
        let mut bytes = [0; Prefix::LEN];
        let Some(file) = self.receive_prefix(&mut bytes)? else { return Ok(None) };
        let prefix = Prefix::read(bytes)?;
        let head = read_bytes(&mut self.0, prefix.head.into())?;
        let payload = match (prefix.is_file, file) {
            (false, _) => Bytes::from(read_bytes(&mut self.0, prefix.payload)?),
            (true, Some(file)) if file.metadata()?.len() == prefix.payload => {
                onnxq_ir::fs::map(&file)?
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the payload is missing")),
        };
        Ok(Some(Frame { head, payload }))
    }

    /// Fills `bytes`. `None` at the end, else the file that came along, if one did.
    fn receive_prefix(&mut self, bytes: &mut [u8]) -> io::Result<Option<Option<File>>> {
        let (mut at, mut file) = (0, None);
        while at < bytes.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut beside = RecvAncillaryBuffer::new(&mut space);
            let into = &mut [IoSliceMut::new(&mut bytes[at..])];
            let count = match recvmsg(&self.0, into, &mut beside, flags()) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::CONNRESET) => 0,
                done => done?.bytes,
            };
            for message in beside.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    file = fds.map(File::from).next().or(file);
                }
            }
            match count {
                0 if at == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => at += count,
            }
        }
        Ok(Some(file))
    }
}

/// Children of this process must not get the descriptor.
fn flags() -> RecvFlags {
    #[cfg(target_os = "linux")]
    return RecvFlags::CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    RecvFlags::empty()
}

/// A file without a name that lies in memory; `None` where the system has none.
#[cfg(target_os = "linux")]
fn in_memory(parts: &[Bytes]) -> io::Result<Option<File>> {
    let fd = rustix::fs::memfd_create("onnxq", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    write_parts(&mut file, parts)?;
    Ok(Some(file))
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_: &[Bytes]) -> io::Result<Option<File>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_as_they_were_sent_however_long() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut sender, mut receiver) = (Sender(a), Receiver(b));
        for len in [0, 1, 63, 64, 70_000, 3 << 20] {
            let parts = [Bytes::from(vec![7; len]), Bytes::from_static(b"end")];
            let head = vec![b'x'; len.min(1000)];
            let sent = std::thread::scope(|scope| {
                let sent = scope.spawn(|| sender.send(&head, &parts));
                let frame = receiver.receive().unwrap().unwrap();
                assert_eq!(frame.head, head);
                assert_eq!(frame.payload[..len], parts[0]);
                let at = super::super::aligned(len as u64) as usize;
                assert_eq!(&frame.payload[at..at + 3], b"end");
                sent.join().unwrap()
            });
            sent.unwrap();
        }
        drop(sender);
        assert!(receiver.receive().unwrap().is_none());
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for bytes in [&b"hello, this is no frame"[..], b"short", &[0xff; 40]] {
            let (mut a, b) = UnixStream::pair().unwrap();
            a.write_all(bytes).unwrap();
            drop(a);
            assert!(Receiver(b).receive().is_err());
        }
        // A head that is promised and does not come.
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&Prefix { head: 9, is_file: false, payload: 1 << 60 }.bytes()).unwrap();
        a.write_all(b"123456789").unwrap();
        drop(a);
        assert!(Receiver(b).receive().is_err());
    }
}
