//! The points on which mail readers disagree.

/// A way to read malformed MIME: which side is taken on each point of disagreement.
///
/// Also used as the set of points that a message raises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reading(u8);

impl Reading {
    /// Exact boundaries, the first of doubles, lines end with LF, a header block ends at what is no field.
    pub const STRICT: Self = Self(0);
    /// A line that only starts with a boundary is one (RFC 2046, 5.1.1), and outer boundaries win.
    pub const PREFIX: Self = Self(1);
    /// The last of several fields or parameters of one name holds, instead of the first.
    pub const LAST: Self = Self(1 << 1);
    /// A lone CR ends a line.
    pub const BARE_CR: Self = Self(1 << 2);
    /// Only an empty line ends a header block, and what is no field is passed over.
    pub const HEADER: Self = Self(1 << 3);
    /// What looks like a boundary followed by a part's header is one, though no field declared it.
    pub const UNDECLARED: Self = Self(1 << 4);

    const POINTS: [Self; 5] =
        [Self::PREFIX, Self::LAST, Self::BARE_CR, Self::HEADER, Self::UNDECLARED];

    pub(crate) fn has(self, point: Self) -> bool {
        self.0 & point.0 == point.0
    }

    pub(crate) fn add(&mut self, point: Self) {
        self.0 |= point.0;
    }

    /// The readings to try for a message that raises these points: each point by itself, then all at once.
    /// Every combination would be up to 32 walks, for messages on which no two readers agree by then anyway.
    pub(crate) fn alternatives(self) -> impl Iterator<Item = Self> {
        let single = Self::POINTS.into_iter().filter(move |point| self.has(*point));
        single.chain((self != Self::STRICT).then_some(self))
    }
}

/// The most readings of one message: the strict one, one for each point, and all points together, where that set
/// may grow while walking, at most by one point each time.
pub const READINGS_MAX: usize = 1 + 2 * Reading::POINTS.len();
