//! Every bound of the protocol, each with its reason. Both sides check what they receive against these.

use std::time::Duration;

/// The protocol versions that this build speaks, oldest and newest.
pub const VERSIONS: (u16, u16) = (1, 1);

/// Largest payload of a frame on a control stream: the largest profile and resume list fit four times.
pub const CONTROL_FRAME_BYTES_MAX: usize = 256 * 1024;
/// Largest payload of a frame on a reservation's stream: an envelope of a thousand recipients with every parameter
/// at its longest takes 1.6 MB.
pub const RESERVATION_FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Largest message, in bytes. Streams carry it in pieces; the bound keeps a length from meaning "for ever".
pub const MESSAGE_BYTES_MAX: u64 = 1 << 40;

/// Longest name of a host, worker, mailbox, module or need, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest sentence (a reason, a detail, a refusal), in bytes. Two screen lines; longer ones are cut.
pub const TEXT_BYTES_MAX: usize = 512;
/// Needs of one mailbox, and offers of one worker: four times what the planned modules add up to.
pub const NEEDS_MAX: usize = 64;
/// Messages that one grabber may hold reserved at one host. A worker starts what it has threads for; a thousand
/// is sixteen times a large machine.
pub const RESERVATIONS_PER_GRABBER_MAX: usize = 1_024;
/// Findings in one verdict: every module with every part worth naming.
pub const FINDINGS_MAX: usize = 256;
/// All that the workers of a message found before the last one, in a frame's encoding: it travels with the envelope to the
/// next worker, and is stored with the verdict.
pub const PART_BYTES_MAX: usize = 64 * 1024;
/// Messages that a verdict may originate: a notice per party and a journal copy.
pub const ORIGINATED_MAX: usize = 16;
/// Largest originated message, in bytes, without the original that the hook puts into it: some screens of text, and
/// [`ORIGINATED_MAX`] of them take half of [`RESERVATION_FRAME_BYTES_MAX`].
pub const ORIGINATED_BYTES_MAX: usize = 64 * 1024;
/// Reasons kept for one message: one an attempt, and those of its hand-backs up to here.
pub const REASONS_MAX: usize = 16;
/// Grabbers linked to one hook at once.
pub const GRABBERS_MAX: usize = 256;
/// Incarnations of one grabber that a hook remembers as replaced.
pub const REPLACED_INCARNATIONS_MAX: usize = 64;
/// Settled (message, fence) pairs remembered for one grabber until it has acknowledged them.
pub const SETTLED_REMEMBERED_MAX: usize = 4 * RESERVATIONS_PER_GRABBER_MAX;
/// Profiles in one frame of peers.
pub const PEERS_MAX: usize = GRABBERS_MAX;

/// Messages of one mailbox that wait in a host's memory; the others wait on disk. Half of them is what one look at all that
/// is stored brings, so at a thousand messages a second there is one look in two seconds; and they take some two megabytes.
pub const WINDOW: usize = 4_096;

/// How often a grabber beats while it holds a reservation.
pub const BEAT: Duration = Duration::from_millis(200);
/// How often it beats while it holds none.
pub const BEAT_IDLE: Duration = Duration::from_secs(5);
/// Missed beats after which a reservation is contestable.
pub const BEATS_MISSED_MAX: u32 = 3;
/// Missed beats after which a reservation is contestable although something of the worker's link still arrives: its
/// process lives, and its beats may be stuck behind what the network lost; but a worker whose grabber hangs while its
/// link goes on must not keep what it has.
pub const BEATS_MISSED_CARRIED_MAX: u32 = 10;
/// How recently something must have arrived, in beats, for a link to count as one that still carries. Shorter than
/// [`BEATS_MISSED_MAX`] beats by what a driver needs to notice, so that a dead worker is given up no later for it.
pub const CARRIED_BEATS: u32 = 2;
/// How often a driver looks whether its links carry, while something is reserved: half a beat.
pub const CARRIED_EVERY: Duration = Duration::from_millis(100);
/// How often profiles go to the peers: at least this often (the 2005 design said once a minute).
pub const PROFILE_EVERY: Duration = Duration::from_secs(1);
/// Everything about one reservation ends after this, unless configured otherwise (the 2005 design's figure).
pub const RESERVATION_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// The longest silence that a module may announce.
pub const SILENCE_MAX: Duration = Duration::from_secs(10 * 60);
/// The silence that counts until a module has announced one.
pub const SILENCE_DEFAULT: Duration = Duration::from_secs(30);
/// Attempts before a message is held.
pub const ATTEMPTS_MAX: u8 = 3;
/// Attempts given back (hand-backs, unavailable modules, links that came back) before a message is held.
pub const RETURNS_MAX: u16 = 100;
/// Before the second attempt at a message that a worker itself gave up: an engine that answers nothing useful for some
/// seconds must not use up all attempts. Each further attempt waits five times as long.
pub const FAILED_PAUSE: Duration = Duration::from_secs(1);
