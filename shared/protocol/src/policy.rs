//! The policy that is built in: every module that the needs ask for runs; a finding quarantines; what could not be
//! said leads to another attempt and then to held; the rest is released.

use crate::id::Digest;

/// Stands for the built-in policy's meaning and changes with it, so that hook and worker never differ unnoticed. A
/// policy that is read from a file has the SHA-256 of its content instead.
pub const BUILT_IN: Digest = Digest(*b"gantry built-in policy, number 1");

/// What stands for a policy that lies in files: every byte of the policy file, which is the first, and of the lists
/// that it names, in any order. Without lists this is the file's own SHA-256; with lists it is the SHA-256 of all files'
/// SHA-256, the policy's first and the others sorted. `sha256` is passed in, since this crate computes nothing.
pub fn of_files(contents: &[&[u8]], sha256: impl Fn(&[u8]) -> Digest) -> Digest {
    let mut digests: Vec<Digest> = contents.iter().map(|bytes| sha256(bytes)).collect();
    if let [only] = digests.as_slice() {
        return *only;
    }
    if let Some((_policy, lists)) = digests.split_first_mut() {
        lists.sort();
    }
    let all: Vec<u8> = digests.iter().flat_map(|digest| digest.0).collect();
    sha256(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No hash, but it tells what was hashed.
    fn shown(bytes: &[u8]) -> Digest {
        let mut digest = [0_u8; 32];
        for (place, byte) in bytes.iter().enumerate() {
            if let Some(slot) = digest.get_mut(place % 32) {
                *slot = byte.wrapping_add(slot.rotate_left(3));
            }
        }
        Digest(digest)
    }

    #[test]
    fn the_order_of_the_lists_does_not_matter_and_everything_else_does() {
        let digest = |contents: &[&[u8]]| of_files(contents, shown);
        assert_eq!(digest(&[b"policy"]), shown(b"policy"));
        assert_eq!(digest(&[b"policy", b"a", b"b"]), digest(&[b"policy", b"b", b"a"]));
        assert_ne!(digest(&[b"policy", b"a"]), digest(&[b"a", b"policy"]));
        assert_ne!(digest(&[b"policy", b"a"]), digest(&[b"policy", b"b"]));
        assert_ne!(digest(&[b"policy", b"a"]), digest(&[b"policy"]));
    }
}
