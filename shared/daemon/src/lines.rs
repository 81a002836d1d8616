//! Lines on their way to a file or a pipe: whoever writes one never waits for what takes them.
//!
//! A thread of its own hands them on, all that have gathered at once. Where it does not keep up, lines are lost and
//! counted rather than kept without bound.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What may wait, in bytes: some thousands of lines, and an eighth of what an idle hook takes up.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// Room that is kept for the next lines; more of it goes back to the system.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// What takes the lines.
pub trait Sink: Send + 'static {
    /// Takes whole lines, each with its end. `lost` lines before them did not fit. What fails is the sink's to tell.
    fn take(&mut self, lines: &[u8], lost: u64);
}

/// Where lines go in. Clones lead to the same thread.
#[derive(Clone, Debug)]
pub struct Lines {
    shared: Arc<Shared>,
}

/// Ends the thread, after it has handed on what is there, when it is dropped.
#[derive(Debug)]
pub struct Draining {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Something has changed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    lost: u64,
    /// How often the sink has taken all that was there.
    taken: u64,
    /// The sink is at it.
    taking: bool,
    /// Somebody waits for it, so it does not gather any longer.
    hurry: bool,
    ended: bool,
}

/// Starts the thread. `gather` is for how long it waits for more before it hands on what has come, to disturb a disk
/// less often; what is there when the process is killed is lost.
///
/// # Errors
/// Where the system gives no thread.
pub fn spawn(name: &str, gather: Duration, mut sink: impl Sink) -> io::Result<(Lines, Draining)> {
    let shared = Arc::new(Shared::default());
    let own = Arc::clone(&shared);
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let mut lines = Vec::new();
        while let Some(lost) = own.next(gather, &mut lines) {
            sink.take(&lines, lost);
            lines.clear();
            lines.shrink_to(KEPT_BYTES_MAX);
            own.done();
        }
    })?;
    let draining = Draining { shared: Arc::clone(&shared), thread: Some(thread) };
    Ok((Lines { shared }, draining))
}

impl Lines {
    /// Puts a line, with its end, behind those that wait. Never waits for the sink.
    pub fn push(&self, line: &[u8]) {
        let mut waiting = self.shared.lock();
        if waiting.lines.len().saturating_add(line.len()) > WAITING_BYTES_MAX {
            waiting.lost += 1;
            return;
        }
        let first = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        if first {
            self.shared.changed.notify_all();
        }
    }

    /// Waits until the sink has taken all lines that were put in before. Blocks.
    pub fn flush(&self) {
        let mut waiting = self.shared.lock();
        // What is being taken at this moment may have been put together before the last line came.
        let until =
            waiting.taken + u64::from(waiting.taking) + u64::from(!waiting.lines.is_empty());
        waiting.hurry = true;
        self.shared.changed.notify_all();
        while waiting.taken < until && !waiting.ended {
            waiting = self.shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines and swaps them into `lines`; gives how many were lost. `None` at the end.
    fn next(&self, gather: Duration, lines: &mut Vec<u8>) -> Option<u64> {
        let mut waiting = self.lock();
        while waiting.lines.is_empty() {
            if waiting.ended {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if !gather.is_zero() {
            let gathering = self.changed.wait_timeout_while(waiting, gather, |waiting| {
                !waiting.ended && !waiting.hurry && waiting.lines.len() < WAITING_BYTES_MAX / 2
            });
            waiting = gathering.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut waiting.lines, lines);
        (waiting.taking, waiting.hurry) = (true, false);
        Some(std::mem::take(&mut waiting.lost))
    }

    fn done(&self) {
        let mut waiting = self.lock();
        waiting.taking = false;
        waiting.taken += 1;
        drop(waiting);
        self.changed.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Told(mpsc::Sender<(Vec<u8>, u64)>);

    impl Sink for Told {
        fn take(&mut self, lines: &[u8], lost: u64) {
            self.0.send((lines.to_vec(), lost)).unwrap();
        }
    }

    /// Takes what it is given only when it is told so.
    struct Stuck(mpsc::Receiver<()>, Told);

    impl Sink for Stuck {
        fn take(&mut self, lines: &[u8], lost: u64) {
            self.0.recv().unwrap();
            self.1.take(lines, lost);
        }
    }

    #[test]
    fn lines_come_whole_and_in_order_and_none_is_left_at_the_end() {
        let (told, taken) = mpsc::channel();
        let (lines, draining) = spawn("test", Duration::from_secs(3_600), Told(told)).unwrap();
        lines.push(b"one\n");
        lines.push(b"two\n");
        lines.flush();
        assert_eq!(taken.try_iter().flat_map(|(text, _)| text).collect::<Vec<_>>(), b"one\ntwo\n");
        lines.flush();
        lines.push(b"three\n");
        drop(draining);
        assert_eq!(taken.recv().unwrap(), (b"three\n".to_vec(), 0));
        lines.flush();
    }

    #[test]
    fn a_sink_that_is_stuck_costs_lines_and_not_memory_or_time() {
        let ((go, wait), (told, taken)) = (mpsc::channel(), mpsc::channel());
        let (lines, draining) = spawn("test", Duration::ZERO, Stuck(wait, Told(told))).unwrap();
        let line = [b'x'; 1_024];
        let pushed = 3 * WAITING_BYTES_MAX / line.len();
        for _ in 0..pushed {
            lines.push(&line);
        }
        assert!(lines.shared.lock().lines.len() <= WAITING_BYTES_MAX);
        // The thread takes at most twice: what came before it looked, and the rest; a last line tells of the loss.
        go.send(()).unwrap();
        go.send(()).unwrap();
        go.send(()).unwrap();
        lines.flush();
        lines.push(b"last");
        drop(draining);
        let (bytes, lost) = taken
            .try_iter()
            .fold((0, 0), |(bytes, lost), (text, more)| (bytes + text.len(), lost + more));
        assert_eq!((bytes - 4) / line.len() + usize::try_from(lost).unwrap(), pushed);
        assert!(lost > 0);
    }
}
