//! One claimed file, from its first byte to a durable message.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use gantry_mail::header::HeaderScanner;
use gantry_mail::{Came, Envelope};
use rustix::fs::OFlags;

use super::folder::{Claim, Fingerprint};
use crate::disk::Disk;
use crate::intake::arrival::{Arrival, Arrived, LocalIntake, NotTaken};
use crate::local::{self, SIDECAR_BYTES_MAX, Sidecar, ToCrlf};

const PIECE_BYTES: usize = 64 * 1024;

/// What became of a claimed file.
pub(super) enum Taken {
    /// The spool has it.
    Durable(Arrived),
    /// It can never be taken.
    Wrong(String),
    /// Not now. `stop`: the spool stores nothing more.
    Later { reason: String, stop: bool },
}

enum Fault {
    Read(io::Error),
    NotTaken(NotTaken),
    Wrong(String),
    Changing,
}

/// Reads a claimed file into the spool.
pub(super) fn take<D: Disk>(intake: &Arc<LocalIntake<D>>, claim: &Claim) -> Taken {
    match try_take(intake, claim) {
        Ok(arrived) => Taken::Durable(arrived),
        Err(Fault::Wrong(reason)) | Err(Fault::NotTaken(NotTaken::Never(reason))) => {
            Taken::Wrong(reason)
        }
        Err(Fault::NotTaken(later)) => {
            Taken::Later { reason: later.to_string(), stop: later.stops_intake() }
        }
        Err(Fault::Changing) => {
            Taken::Later { reason: "it changed while it was read".to_owned(), stop: false }
        }
        // Neither goes away by itself, and the file is whole where it is set aside.
        Err(Fault::Read(error))
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound
            ) || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) =>
        {
            Taken::Wrong(format!("it cannot be read: {error}"))
        }
        Err(Fault::Read(error)) => {
            Taken::Later { reason: format!("read it: {error}"), stop: false }
        }
    }
}

fn try_take<D: Disk>(intake: &Arc<LocalIntake<D>>, claim: &Claim) -> Result<Arrived, Fault> {
    let mut file = open(&claim.path)?;
    let before = fingerprint(&file)?;
    let mut lines = ToCrlf::default();
    let mut start = Vec::new();
    let mut envelope = match &claim.sidecar {
        Some(sidecar) => read_sidecar(sidecar)?,
        None => {
            let ended = read_head(&mut file, &mut lines, &mut start)?;
            if ended {
                std::mem::take(&mut lines).finish(&mut start);
            }
            let (envelope, length) =
                local::take_head_fields(&start).map_err(|error| Fault::Wrong(error.to_string()))?;
            start.drain(..length);
            envelope
        }
    };
    envelope.peer.came = Came::Pickup;
    let mut arrival = Arrival::begin(intake, claim.id, &envelope)?;
    arrival.write(&start)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = file.read(&mut piece).map_err(Fault::Read)?;
        start.clear();
        if count == 0 {
            break;
        }
        lines.push(piece.get(..count).unwrap_or_default(), &mut start);
        arrival.write(&start)?;
    }
    lines.finish(&mut start);
    arrival.write(&start)?;
    if fingerprint(&file)? != before {
        // Somebody still has it open and writes: what we have read is not all of it.
        return Err(Fault::Changing);
    }
    Ok(arrival.finish()?)
}

/// Opens what the claim promised: a file. Its name may have been given to something else at the last moment.
fn open(path: &Path) -> Result<File, Fault> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
    let file = options.open(path).map_err(Fault::Read)?;
    match file.metadata().map_err(Fault::Read)?.is_file() {
        true => Ok(file),
        false => Err(Fault::Wrong("it is no regular file".to_owned())),
    }
}

fn fingerprint(file: &File) -> Result<Fingerprint, Fault> {
    file.metadata().map(|metadata| Fingerprint::of(&metadata)).map_err(Fault::Read)
}

/// Reads up to behind the header block; tells whether that was the end of the file.
fn read_head(file: &mut File, lines: &mut ToCrlf, start: &mut Vec<u8>) -> Result<bool, Fault> {
    let mut scanner = HeaderScanner::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = file.read(&mut piece).map_err(Fault::Read)?;
        if count == 0 {
            return Ok(true);
        }
        let before = start.len();
        lines.push(piece.get(..count).unwrap_or_default(), start);
        match scanner.push(start.get(before..).unwrap_or_default()) {
            Ok(Some(_)) => return Ok(false),
            Ok(None) => {}
            Err(error) => return Err(Fault::Wrong(error.to_string())),
        }
    }
}

fn read_sidecar(path: &Path) -> Result<Envelope, Fault> {
    let file = match open(path) {
        Err(Fault::Read(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Fault::Wrong("the file with its envelope is missing".to_owned()));
        }
        file => file?,
    };
    let mut text = Vec::new();
    file.take(SIDECAR_BYTES_MAX + 1).read_to_end(&mut text).map_err(Fault::Read)?;
    if text.len() as u64 > SIDECAR_BYTES_MAX {
        let reason = format!("its envelope is larger than {SIDECAR_BYTES_MAX} bytes");
        return Err(Fault::Wrong(reason));
    }
    let wrong = |error: local::EnvelopeError| Fault::Wrong(error.to_string());
    let sidecar: Sidecar = serde_json::from_slice(&text).map_err(|error| wrong(error.into()))?;
    local::recipients(&sidecar.sender, &sidecar.recipients).map_err(wrong)
}

impl From<NotTaken> for Fault {
    fn from(error: NotTaken) -> Self {
        Self::NotTaken(error)
    }
}
