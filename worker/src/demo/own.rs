//! One's own mail for the demo: a folder of messages (also a Maildir), or an mbox file.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Most messages that are looked at; a demo is no migration.
const MESSAGES_MAX: usize = 100_000;
/// Largest message that is sent, in bytes; larger ones are left out. Below the usual limits of MTAs.
const MESSAGE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Deepest folder below the one named: a Maildir++ has three levels.
const FOLDER_DEPTH_MAX: usize = 8;

/// Where the messages lie. Their bytes are read when they are sent.
#[derive(Debug)]
pub struct OwnMail {
    pieces: Vec<Piece>,
    /// Messages left out because they were empty or too large.
    pub left_out: usize,
}

#[derive(Debug)]
struct Piece {
    path: PathBuf,
    offset: u64,
    length: u64,
    /// In an mbox, `>From ` stands for `From `.
    mbox: bool,
}

impl OwnMail {
    /// Looks through a folder or an mbox file.
    ///
    /// # Errors
    /// Where it cannot be read or holds no message.
    pub fn open(path: &Path) -> Result<Self> {
        let mut own = Self { pieces: Vec::new(), left_out: 0 };
        let about = || format!("read mail from {}", path.display());
        let metadata = std::fs::metadata(path).with_context(about)?;
        if metadata.is_dir() {
            own.folder(path, 0).with_context(about)?;
        } else {
            own.file(path).with_context(about)?;
        }
        // The order of a folder is the file system's whim; that of a demo should not be.
        own.pieces.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        ensure!(!own.pieces.is_empty(), "read mail from {}: there is no message", path.display());
        Ok(own)
    }

    /// How many messages there are.
    pub fn count(&self) -> usize {
        self.pieces.len()
    }

    /// The message of this number, counted round and round, with stray CR and LF sent as CRLF.
    pub(super) fn message(&self, number: usize) -> Result<Vec<u8>> {
        let piece = number.checked_rem(self.pieces.len()).and_then(|index| self.pieces.get(index));
        let piece = piece.context("there is no mail")?;
        let about = || format!("read mail from {}", piece.path.display());
        let mut file = File::open(&piece.path).with_context(about)?;
        file.seek(SeekFrom::Start(piece.offset)).with_context(about)?;
        let mut bytes = Vec::new();
        file.take(piece.length).read_to_end(&mut bytes).with_context(about)?;
        Ok(crlf(&bytes, piece.mbox))
    }

    fn folder(&mut self, folder: &Path, depth: usize) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // Links are not followed: they may lead in circles.
            let kind = entry.file_type()?;
            if kind.is_dir() && depth < FOLDER_DEPTH_MAX {
                self.folder(&entry.path(), depth + 1)?;
            } else if kind.is_file() {
                let length = entry.metadata()?.len();
                self.add(Piece { path: entry.path(), offset: 0, length, mbox: false });
            }
        }
        Ok(())
    }

    /// A single file: an mbox where it begins with `From `, a message otherwise.
    fn file(&mut self, path: &Path) -> std::io::Result<()> {
        let mut reader = BufReader::new(File::open(path)?);
        let (mut line, mut offset, mut start, mut mbox) = (Vec::new(), 0_u64, 0_u64, false);
        let mut after_empty = true;
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            let separator = after_empty && line.starts_with(b"From ");
            if (read == 0 || separator) && (mbox || !separator) {
                let length = offset - start;
                self.add(Piece { path: path.to_owned(), offset: start, length, mbox });
            }
            if read == 0 {
                return Ok(());
            }
            offset += u64::try_from(read).unwrap_or(u64::MAX);
            if separator {
                (start, mbox) = (offset, true);
            }
            // A file that does not begin with a separator is one message, whatever follows.
            after_empty = mbox && matches!(line.as_slice(), b"\n" | b"\r\n");
        }
    }

    fn add(&mut self, piece: Piece) {
        let sound = piece.length > 0 && piece.length <= MESSAGE_BYTES_MAX;
        if sound && self.pieces.len() < MESSAGES_MAX {
            self.pieces.push(piece);
        } else {
            self.left_out += 1;
        }
    }
}

/// Every line end as CRLF, the last line ended too; in an mbox, `>From ` without its quoting.
pub fn crlf(bytes: &[u8], mbox: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 32 + 2);
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        let (line, tail) = rest.split_at(end);
        let unquoted = line.strip_prefix(b">").filter(|_| mbox && is_quoted_from(line));
        out.extend_from_slice(unquoted.unwrap_or(line));
        out.extend_from_slice(b"\r\n");
        rest = tail.strip_prefix(b"\r\n").or_else(|| tail.get(1..)).unwrap_or_default();
    }
    out
}

/// Whether a line is `From ` behind any number of `>`.
fn is_quoted_from(line: &[u8]) -> bool {
    let end = line.iter().position(|byte| *byte != b'>').unwrap_or(line.len());
    line.get(end..).is_some_and(|rest| rest.starts_with(b"From "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn own(name: &str, content: &[u8]) -> (tempfile::TempDir, OwnMail) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let own = OwnMail::open(&path).unwrap();
        (folder, own)
    }

    #[test]
    fn an_mbox_gives_its_messages() {
        let content = b"From a@x Fri Nov 20\nSubject: 1\n\n>From here\n>>From there\n\nFrom b@x Fri\nSubject: 2\n\nx\nFrom y\n";
        let (_folder, own) = own("mbox", content);
        assert_eq!(own.count(), 2);
        assert_eq!(own.message(0).unwrap(), b"Subject: 1\r\n\r\nFrom here\r\n>From there\r\n\r\n");
        assert_eq!(own.message(1).unwrap(), b"Subject: 2\r\n\r\nx\r\nFrom y\r\n");
        assert_eq!(own.message(2).unwrap(), own.message(0).unwrap());
    }

    #[test]
    fn a_single_message_and_a_folder_of_them() {
        let (folder, one) = own("a.eml", b"Subject: x\n\nFrom me\r\rto\n\r\nyou");
        assert_eq!(one.message(0).unwrap(), b"Subject: x\r\n\r\nFrom me\r\n\r\nto\r\n\r\nyou\r\n");
        std::fs::create_dir(folder.path().join("cur")).unwrap();
        std::fs::write(folder.path().join("cur/b"), b"Subject: y\r\n\r\n").unwrap();
        std::fs::write(folder.path().join("cur/empty"), b"").unwrap();
        let all = OwnMail::open(folder.path()).unwrap();
        assert_eq!((all.count(), all.left_out), (2, 1));
    }

    #[test]
    fn no_mail_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let error = OwnMail::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("no message"), "{error}");
    }
}
