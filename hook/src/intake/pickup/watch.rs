//! Being told of new files, where the system tells: inotify on Linux. Elsewhere, on file systems of other machines, and
//! whenever something goes wrong, looking again from time to time finds them.

use std::path::Path;

#[cfg(target_os = "linux")]
mod notified {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    use tokio::io::unix::AsyncFd;

    /// Room for several events with the longest names.
    const EVENTS_BYTES: usize = 4 * 1024;

    pub(super) struct Notified(AsyncFd<OwnedFd>);

    impl Notified {
        #[expect(
            deprecated,
            reason = "an OwnedFd stays what it is while it is registered, and the successor needs `unsafe`"
        )]
        pub(super) fn of(folder: &Path) -> io::Result<Self> {
            let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            let events = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
            inotify::add_watch(&watch, folder, events)?;
            AsyncFd::new(watch).map(Self)
        }

        /// Waits for events and forgets all that have come: whoever looks then sees everything.
        pub(super) async fn changed(&mut self) -> io::Result<()> {
            let mut ready = self.0.readable().await?;
            let mut events = [0; EVENTS_BYTES];
            while let Ok(Ok(_)) = ready.try_io(|watch| Ok(rustix::io::read(watch, &mut events)?)) {}
            Ok(())
        }
    }
}

/// A folder that is being watched, as far as that is possible.
pub(super) struct Watch {
    #[cfg(target_os = "linux")]
    notified: Option<notified::Notified>,
}

impl Watch {
    /// Must be called within the runtime.
    #[cfg(target_os = "linux")]
    pub(super) fn new(folder: &Path) -> Self {
        let notified = notified::Notified::of(folder);
        if let Err(error) = &notified {
            tracing::info!("new files are found by looking from time to time: {error}");
        }
        Self { notified: notified.ok() }
    }

    /// Waits until something may have changed; for ever where nobody tells.
    #[cfg(target_os = "linux")]
    pub(super) async fn changed(&mut self) {
        if let Some(notified) = &mut self.notified
            && notified.changed().await.is_ok()
        {
            return;
        }
        self.notified = None;
        std::future::pending().await
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn new(_folder: &Path) -> Self {
        Self {}
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) async fn changed(&mut self) {
        std::future::pending().await
    }
}
