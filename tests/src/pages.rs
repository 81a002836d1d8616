//! What the documents say, for tests that hold them to it.

use std::path::{Path, PathBuf};

use crate::project;

/// The text of a page, by its path in the project.
pub fn page(path: &str) -> String {
    let path = project().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

/// The contents of the fenced blocks of a page.
pub fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut current: Option<String> = None;
    for line in page.lines() {
        let fence = line.trim_start().starts_with("```");
        match (&mut current, fence) {
            (Some(_), true) => blocks.extend(current.take()),
            (None, true) => current = Some(String::new()),
            (Some(block), false) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, false) => {}
        }
    }
    blocks
}

/// The blocks of a page whose first line is a comment that names this file.
pub fn blocks_of(page: &str, file: &str) -> String {
    let first = format!("# {file}");
    let named = |block: &String| block.lines().next().is_some_and(|line| line.starts_with(&first));
    let found: Vec<String> = blocks(page).into_iter().filter(named).collect();
    assert!(!found.is_empty(), "no block begins with {first:?}");
    found.concat()
}

/// All files below a folder of the project with this ending, without what is built.
pub fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![project().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.is_file() && name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A path as people name it: from the project's root.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(project()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_by_their_first_line() {
        let page = "text\n```\n# /etc/a\nx = 1\n```\nmore\n```toml\n# other\ny\n```\n";
        assert_eq!(blocks(page), ["# /etc/a\nx = 1\n", "# other\ny\n"]);
        assert_eq!(blocks_of(page, "/etc/a"), "# /etc/a\nx = 1\n");
    }
}
