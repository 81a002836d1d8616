//! Which policy workers must have. The hook compares digests; it never interprets a policy.

use std::io::Read;
use std::path::PathBuf;

use gantry_config::Value;
use gantry_protocol::id::Digest;
use gantry_protocol::policy::of_files;
use ring::digest::SHA256;

/// The policy file and the lists that it may name.
const FILES_MAX: usize = 65;
/// Largest of them, in bytes, as workers bound them.
const FILE_BYTES_MAX: u64 = 8 << 20;

const REMEDY: &str = "write the digest that `gantry policy check` prints, the path of a copy of the policy file, or a \
                      list of that path and those of the lists that it names";

/// The digest itself, or that of the files.
pub(super) fn digest(value: &Value<'_>) -> Option<Digest> {
    if value.is_list() {
        let paths = value.list(FILES_MAX, REMEDY, |item| item.path())?;
        if paths.is_empty() {
            value.wrong("the list is empty", REMEDY);
            return None;
        }
        return of_copies(value, &paths);
    }
    match hex(value.text(REMEDY)?) {
        Some(digest) => Some(digest),
        None => of_copies(value, &[value.path()?]),
    }
}

fn of_copies(value: &Value<'_>, paths: &[PathBuf]) -> Option<Digest> {
    let mut contents: Vec<Vec<u8>> = Vec::new();
    for path in paths {
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        if let Err(error) = read {
            value.wrong(format!("read {}: {error}", path.display()), REMEDY);
            return None;
        }
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
            value.wrong(format!("{} is larger than 8MiB", path.display()), REMEDY);
            return None;
        }
        contents.push(bytes);
    }
    let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    Some(of_files(&contents, sha256))
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut digest = Digest([0; 32]);
    // Both are 32 bytes long.
    digest.0.copy_from_slice(ring::digest::digest(&SHA256, bytes).as_ref());
    digest
}

/// 64 hexadecimal digits.
fn hex(text: &str) -> Option<Digest> {
    let mut digest = Digest([0; 32]);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != digest.0.len()
        || !rest.is_empty()
        || !text.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return None;
    }
    for (byte, pair) in digest.0.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn read(folder: &Path, policy: &str) -> Result<Digest, String> {
        let text = format!(
            "name = \"mx1\"\nspool = \"spool\"\nlisten = \"127.0.0.1:4733\"\npolicy = {policy}\n\
             [[mailbox]]\nname = \"a\"\nneeds = []\ncustody = \"hook\"\nwhen_unprocessed = \"wait\"\n\
             intake = {{ type = \"smtp\", listen = \"127.0.0.1:10025\" }}\n\
             release = {{ type = \"smtp\", address = \"127.0.0.1:10026\" }}\n"
        );
        Config::from_text(&folder.join("hook.toml"), &text)
            .map(|config| config.policy)
            .map_err(|mistakes| mistakes[0].to_string())
    }

    #[test]
    fn a_policy_is_known_by_its_digest_or_by_copies_of_its_files() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("policy.toml", "one"), ("a.txt", "two"), ("b.txt", "three")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let one = sha256(b"one");
        assert_eq!(read(folder.path(), &format!("\"{one}\"")), Ok(one));
        assert_eq!(read(folder.path(), "\"policy.toml\""), Ok(one));
        assert_eq!(read(folder.path(), "[\"policy.toml\"]"), Ok(one));
        let all = of_files(&[b"one", b"two", b"three"], sha256);
        for list in ["\"a.txt\", \"b.txt\"", "\"b.txt\", \"a.txt\""] {
            assert_eq!(read(folder.path(), &format!("[\"policy.toml\", {list}]")), Ok(all));
        }
        for (wrong, why) in [
            ("\"none.toml\"", "policy: read "),
            ("[]", "policy: the list is empty"),
            ("7", "policy: it is a number"),
        ] {
            let told = read(folder.path(), wrong).unwrap_err();
            assert!(told.contains(&format!("hook.toml:4: {why}")), "{told}");
        }
    }
}
