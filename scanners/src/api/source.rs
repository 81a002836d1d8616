//! The bytes of a message, in memory or in a temporary file. Several modules may read them at once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::{SpooledData, SpooledTempFile};
use tokio_stream::{Stream, StreamExt};

/// The bytes of a message. Clones share them.
#[derive(Clone, Debug)]
pub enum Source {
    Memory(Bytes),
    File(SourceFile),
}

/// A file that nobody writes any more: a temporary one without a name, gone with its last clone.
#[derive(Clone, Debug)]
pub struct SourceFile {
    file: Arc<File>,
    length: u64,
}

/// Pieces of a message in their order; adds up to its length, or ends in an error.
pub(crate) type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Pieces that were read but not yet taken: one to work on while the next is read.
const CHUNKS_AHEAD: usize = 1;

impl Source {
    /// What was written to `file`, which is where a worker puts a message while it arrives: small ones stay in
    /// memory, larger ones are on disk.
    ///
    /// # Errors
    /// When the length of the file on disk cannot be had.
    pub fn spooled(file: SpooledTempFile) -> io::Result<Self> {
        match file.into_inner() {
            SpooledData::InMemory(bytes) => Ok(Self::Memory(bytes.into_inner().into())),
            SpooledData::OnDisk(file) => {
                let length = file.metadata()?.len();
                Ok(Self::File(SourceFile { file: Arc::new(file), length }))
            }
        }
    }

    /// In bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Memory(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::File(file) => file.length,
        }
    }

    /// The whole message, which the caller has found to be small enough for memory. Blocks on the disk.
    ///
    /// # Errors
    /// When the file cannot be read, or has become shorter.
    pub fn read(&self) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File(file) => {
                let length = usize::try_from(file.length).map_err(io::Error::other)?;
                let mut bytes = Vec::with_capacity(length);
                file.reader().read_to_end(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    }

    /// The first `bytes_max` bytes, or all where there are fewer. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn start(&self, bytes_max: usize) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.slice(..bytes_max.min(bytes.len()))),
            Self::File(file) => {
                let mut bytes = Vec::new();
                let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
                file.reader().take(limit).read_to_end(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    }

    /// Writes the whole message. Blocks on the disk.
    ///
    /// # Errors
    /// When the message cannot be read to its end, or not be written.
    pub(crate) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => out.write_all(bytes),
            Self::File(file) => io::copy(&mut file.reader(), out).map(|_length| ()),
        }
    }

    /// The message in pieces of at most `size` bytes, read off the runtime's threads.
    pub(crate) fn chunks(&self, size: usize) -> Chunks {
        match self {
            Self::Memory(bytes) => {
                let mut rest = bytes.clone();
                Box::pin(tokio_stream::iter(std::iter::from_fn(move || {
                    let chunk = rest.split_to(size.min(rest.len()));
                    (!chunk.is_empty()).then_some(Ok(chunk))
                })))
            }
            Self::File(file) => {
                let (sender, receiver) = tokio::sync::mpsc::channel(CHUNKS_AHEAD);
                let mut reader = file.reader();
                tokio::task::spawn_blocking(move || {
                    while let Some(chunk) = next_chunk(&mut reader, size).transpose() {
                        let last = chunk.is_err();
                        if sender.blocking_send(chunk).is_err() || last {
                            break;
                        }
                    }
                });
                Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver).fuse())
            }
        }
    }
}

fn next_chunk(reader: &mut FileReader, size: usize) -> io::Result<Option<Bytes>> {
    let mut chunk = vec![0; size];
    let length = reader.read(&mut chunk)?;
    chunk.truncate(length);
    Ok((length > 0).then(|| chunk.into()))
}

impl SourceFile {
    /// Each reader has a position of its own.
    fn reader(&self) -> FileReader {
        FileReader { file: self.file.clone(), at: 0, end: self.length }
    }
}

struct FileReader {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let take = rest.min(buffer.len());
        let buffer = buffer.get_mut(..take).unwrap_or_default();
        if buffer.is_empty() {
            return Ok(0);
        }
        let length = read_at(&self.file, buffer, self.at)?;
        if length == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file has become shorter",
            ));
        }
        self.at += u64::try_from(length).map_err(io::Error::other)?;
        Ok(length)
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, at)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, at)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn source(bytes: &[u8], in_memory_max: usize) -> Source {
        let mut file = SpooledTempFile::new(in_memory_max);
        file.write_all(bytes).unwrap();
        Source::spooled(file).unwrap()
    }

    async fn collect(source: &Source, size: usize) -> Vec<Vec<u8>> {
        let mut chunks = source.chunks(size);
        let mut all = Vec::new();
        while let Some(chunk) = chunks.next().await {
            all.push(chunk.unwrap().to_vec());
        }
        all
    }

    #[tokio::test]
    async fn memory_and_file_give_the_same_bytes_also_at_once() {
        let bytes: Vec<u8> = (0..1_000_u32).flat_map(u32::to_be_bytes).collect();
        for in_memory_max in [1 << 20, 16] {
            let source = source(&bytes, in_memory_max);
            assert_eq!(matches!(source, Source::File(_)), in_memory_max == 16);
            assert_eq!(source.length(), 4_000);
            let (one, other) = tokio::join!(collect(&source, 300), collect(&source, 4_096));
            assert_eq!(one.len(), 14);
            assert_eq!(one.concat(), bytes);
            assert_eq!(other.concat(), bytes);
            assert_eq!(source.read().unwrap(), bytes);
            assert_eq!(source.start(50).unwrap(), bytes[..50]);
            assert_eq!(source.start(9_999).unwrap(), bytes);
            let mut written = Vec::new();
            source.write_to(&mut written).unwrap();
            assert_eq!(written, bytes);
        }
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_an_error_and_not_a_short_message() {
        let source = source(&[7; 100], 10);
        let Source::File(file) = &source else { panic!("on disk") };
        file.file.set_len(60).unwrap();
        assert!(source.read().is_err());
        let mut chunks = source.chunks(50);
        let mut length = 0;
        let failed = loop {
            match chunks.next().await {
                Some(Ok(chunk)) => length += chunk.len(),
                Some(Err(error)) => break error,
                None => panic!("ended after {length} bytes as if that were all"),
            }
        };
        assert_eq!(failed.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn an_empty_message_has_no_chunks() {
        assert!(collect(&source(&[], 10), 10).await.is_empty());
    }
}
