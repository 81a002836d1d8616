//! Workers that fail on everything rest, so that they do not make a suspect of every message.
//!
//! A worker whose scanner is broken in a way that it does not notice is always free, and would be given more than all others. Only
//! what others can do is kept from it: where nobody else works, or the others fail, too, the messages may be to blame, and their
//! attempts decide.

use std::time::Duration;

use super::effect::Event;
use super::grabbers::GrabberKey;
use super::{Pool, Timer};
use crate::frame::{HostControl, Notice};
use crate::time::Moment;

/// Failures in a row, of whatever messages, after which a worker rests. A few poisonous messages one after the other are no
/// reason yet, and three attempts of each go to different workers.
pub(super) const FAILURES_MAX: u32 = 5;
/// The first rest. It costs five messages another attempt, and each further rest one, so that it is found within seconds that
/// all is well again.
pub(super) const REST_MIN: Duration = Duration::from_secs(5);
/// The longest rest, which doubles from one to the next: a worker that was repaired is back within this.
pub(super) const REST_MAX: Duration = Duration::from_secs(5 * 60);

/// How often a worker has failed, and whether it rests for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Failing {
    /// Since it last did something well.
    in_a_row: u32,
    rests: u32,
    /// Until when, and why.
    resting: Option<(Moment, String)>,
}

impl Failing {
    /// Why it is given nothing, if so.
    pub(super) fn reason(&self) -> Option<&str> {
        self.resting.as_ref().map(|(_, reason)| reason.as_str())
    }

    fn fails_on_everything(&self) -> bool {
        self.in_a_row >= FAILURES_MAX
    }
}

impl Pool {
    /// A worker came to nothing with a message: it gave up on it, broke its stream, stalled, or returned what is no verdict.
    pub(super) fn count_failure(&mut self, key: GrabberKey, now: Moment) {
        let Some(grabber) = self.grabbers.get_mut(key) else { return };
        let failing = &mut grabber.failing;
        failing.in_a_row = failing.in_a_row.saturating_add(1);
        if !failing.fails_on_everything() || failing.resting.is_some() || !self.others_do_well(key)
        {
            return;
        }
        let Some(grabber) = self.grabbers.get_mut(key) else { return };
        let failing = &mut grabber.failing;
        let pause = (REST_MIN * (1 << failing.rests.min(16))).min(REST_MAX);
        failing.rests = failing.rests.saturating_add(1);
        let reason = format!(
            "it failed {} times in a row while others do not: it is given nothing for {} s",
            failing.in_a_row,
            pause.as_secs()
        );
        failing.resting = Some((now + pause, reason.clone()));
        let (session, name) = (grabber.session, grabber.name.clone());
        self.timers.set(Timer::Rested(key), now + pause);
        if let Some(session) = session {
            self.control(session, HostControl::Notice(Notice { text: reason.clone() }));
        }
        self.event(Event::Rests { grabber: name, reason });
    }

    /// A worker returned a verdict that counts.
    pub(super) fn count_success(&mut self, key: GrabberKey) {
        self.timers.clear(Timer::Rested(key));
        if let Some(grabber) = self.grabbers.get_mut(key) {
            grabber.failing = Failing::default();
        }
    }

    /// It is tried again; if it fails once more, it rests for longer.
    pub(super) fn on_rested(&mut self, key: GrabberKey) {
        if let Some(grabber) = self.grabbers.get_mut(key) {
            grabber.failing.resting = None;
        }
    }

    /// Whether somebody else does the same work, and does not fail at it.
    fn others_do_well(&self, key: GrabberKey) -> bool {
        let Some(own) = self.grabbers.get(key) else { return false };
        self.grabbers.iter().any(|(other, grabber)| {
            other != key
                && grabber.is_at_work()
                && !grabber.failing.fails_on_everything()
                && grabber.can_all_of(own)
        })
    }
}
