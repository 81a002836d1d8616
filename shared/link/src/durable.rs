//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The owner alone: private keys and tokens.
    Secret,
    Public,
}

/// Replaces `path` by `bytes`: temporary file, sync, rename, sync of the folder. After an error the old file stands.
pub(crate) fn write(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = Path::new(&temporary);
    let written = (|| {
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        set_mode(&mut options, access);
        let mut file = options.open(temporary)?;
        give_to_owner_of_folder(&file, path);
        file.write_all(bytes)?;
        file.sync_all()?;
        rename(temporary, path)
    })();
    if written.is_err() {
        // The error that stopped us is the one to tell; a left-over temporary file is overwritten next time.
        let _ = fs::remove_file(temporary);
    }
    written
}

/// Renames a file and syncs the folder of the new name.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[allow(clippy::disallowed_methods, reason = "the folder is synced right below")]
    fs::rename(from, to)?;
    sync_folder(to)
}

/// Removes a file and syncs its folder.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_folder(path)
}

/// Adds a line to a file and syncs it. A line that a crash has cut short stays one of its own.
pub(crate) fn append_line(path: &Path, line: &str) -> io::Result<()> {
    let new = !path.exists();
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    if new {
        give_to_owner_of_folder(&file, path);
    }
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let torn = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{torn}{line}\n").as_bytes())?;
    file.sync_all()?;
    if new { sync_folder(path) } else { Ok(()) }
}

/// Locks a folder: until what it returns is dropped, no other process changes what is in it.
pub(crate) fn lock(folder: &Path) -> io::Result<File> {
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
    give_to_owner_of_folder(&file, &path);
    match file.lock() {
        // Some old platforms have no such locks. What is lost there is the order of two commands given at once.
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
        _ => Ok(file),
    }
}

/// A text file of at most `bytes_max` bytes.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(bytes_max.saturating_add(1)).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("is longer than {bytes_max} bytes"),
        ));
    }
    Ok(text)
}

/// Makes a folder that only its owner may enter.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    if path.is_dir() {
        return Ok(());
    }
    builder.create(path)?;
    // A folder can be opened on Unix alone.
    #[cfg(unix)]
    give_to_owner_of_folder(&File::open(path)?, path);
    Ok(())
}

#[cfg(unix)]
fn set_mode(options: &mut OpenOptions, access: Access) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(if access == Access::Secret { 0o600 } else { 0o644 });
}

/// Root's commands leave nothing in a daemon's folder that the daemon cannot read.
#[cfg(unix)]
fn give_to_owner_of_folder(file: &File, path: &Path) {
    use std::os::unix::fs::{MetadataExt, fchown};
    let folder = path.parent().and_then(|folder| fs::metadata(folder).ok());
    if let (Some(folder), Ok(own)) = (folder, file.metadata())
        && own.uid() == 0
        && folder.uid() != 0
    {
        // Where root may not (some network file systems), the daemon names the file that it cannot read.
        let _ = fchown(file, Some(folder.uid()), Some(folder.gid()));
    }
}

#[cfg(not(unix))]
fn give_to_owner_of_folder(_file: &File, _path: &Path) {
    // Files get the rights of the folder they are made in.
}

#[cfg(not(unix))]
fn set_mode(_options: &mut OpenOptions, _access: Access) {
    // Files get the rights of the folder they are made in.
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    // A folder cannot be opened for a sync there; NTFS journals renames in order.
    Ok(())
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::os::unix::fs::{MetadataExt, chown};

    use super::*;

    #[test]
    fn what_root_writes_belongs_to_the_owner_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let own = fs::metadata(folder.path()).unwrap().uid();
        let owner = if own == 0 { 12_345 } else { own };
        if own == 0 && chown(folder.path(), Some(owner), None).is_err() {
            eprintln!("skipped: root may not give files away here");
            return;
        }
        let [whole, lines, lock, inner] =
            ["whole", "lines", "lock", "inner"].map(|name| folder.path().join(name));
        write(&whole, b"1", Access::Secret).unwrap();
        append_line(&lines, "1").unwrap();
        super::lock(folder.path()).unwrap();
        create_folder(&inner).unwrap();
        for path in [whole, lines, lock, inner] {
            assert_eq!(fs::metadata(&path).unwrap().uid(), owner, "{}", path.display());
        }
    }

    #[test]
    fn a_line_cut_by_a_crash_costs_no_other_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("issued");
        fs::write(&path, "whole\ncut sho").unwrap();
        append_line(&path, "next").unwrap();
        append_line(&path, "last").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\ncut sho\nnext\nlast\n");
    }
}
