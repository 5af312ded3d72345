//! SHA-256 as people write it: 64 hexadecimal digits.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

const BUFFER: usize = 1 << 20;

/// The digest of bytes in memory.
pub fn sha256_hex(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// How many bytes a stream has, and their digest.
pub fn sha256_of(mut stream: impl Read) -> io::Result<(u64, String)> {
    let (mut hash, mut count) = (Sha256::new(), 0);
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok((count, hex::encode(hash.finalize()))),
            Ok(len) => {
                hash.update(&buffer[..len]);
                count += len as u64;
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_streams_have_the_same_digest() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex("abc"), abc);
        assert_eq!(sha256_of(&b"abc"[..]).unwrap(), (3, abc.to_owned()));
        let long = vec![7; BUFFER + 1];
        assert_eq!(sha256_of(&long[..]).unwrap(), (BUFFER as u64 + 1, sha256_hex(&long)));
    }
}
