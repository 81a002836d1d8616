//! Real mail that nobody on this project wrote.

use std::path::{Path, PathBuf};

/// One message of the corpus.
pub struct Sample {
    /// Folder and file.
    pub name: String,
    pub bytes: Vec<u8>,
}

/// All messages, sorted by name; `None` where there is no corpus beside the project.
pub fn read() -> Option<Vec<Sample>> {
    let mut paths = Vec::new();
    for folder in list(&find()?).into_iter().filter(|path| path.is_dir()) {
        paths.extend(list(&folder).into_iter().filter(|path| path.is_file() && is_mail(path)));
    }
    paths.sort();
    let sample = |path: PathBuf| {
        let name = path.iter().rev().take(2).map(|part| part.to_string_lossy()).collect::<Vec<_>>();
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        Sample { name: format!("{}/{}", name[1], name[0]), bytes }
    };
    Some(paths.into_iter().map(sample).collect())
}

fn find() -> Option<PathBuf> {
    let beside = |folder: &Path| folder.join("../shared/corpus");
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(beside).find(|path| path.is_dir())
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.expect("a folder entry").path()).collect()
}

fn is_mail(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !["LICENSE", "NOTICE", "README"].iter().any(|other| name.starts_with(other))
}
