//! What a client adds to a coinbase, and what a node has to leave free for it (specification 7.1).

/// Weight that Bitcoin Core reserves at least.
const RESERVED_WEIGHT_MIN: u64 = 2_000;
/// Weight of header, transaction count and a coinbase without the client's outputs, in a block with witnesses.
const FIXED_WEIGHT: u64 = 1_168;
/// Weight of a byte outside of witnesses.
const WEIGHT_PER_BYTE: u64 = 4;

/// The contents of a CoinbaseOutputConstraints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Constraints {
    /// Bytes of serialised outputs that are added at most.
    pub max_additional_size: u32,
    /// Signature operations of these outputs at most.
    pub max_additional_sigops: u16,
}

impl Constraints {
    /// Weight units that a template leaves free: never less than Bitcoin Core's floor of 2,000.
    pub const fn reserved_weight(self) -> u64 {
        let weight = FIXED_WEIGHT + WEIGHT_PER_BYTE * self.max_additional_size as u64;
        if weight < RESERVED_WEIGHT_MIN { RESERVED_WEIGHT_MIN } else { weight }
    }

    /// What a node is asked for.
    pub const fn reserve(self) -> Reserve {
        Reserve { reserved_weight: self.reserved_weight(), max_additional_sigops: self.max_additional_sigops }
    }
}

/// What a node's template leaves free. Constraints that differ only below the floor have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reserve {
    /// Weight units of header, transaction count and the whole coinbase.
    pub reserved_weight: u64,
    /// Signature operations of the coinbase's added outputs.
    pub max_additional_sigops: u16,
}

impl Reserve {
    /// Whether templates with this reserve are valid for who needs `other`.
    pub const fn covers(self, other: Self) -> bool {
        self.reserved_weight >= other.reserved_weight
            && self.max_additional_sigops >= other.max_additional_sigops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_is_reserved_as_the_specification_says() {
        let weight = |max_additional_size| {
            Constraints { max_additional_size, max_additional_sigops: 0 }.reserved_weight()
        };
        assert_eq!(weight(0), 2_000);
        assert_eq!(weight(208), 2_000);
        assert_eq!(weight(209), 2_004);
        assert_eq!(weight(1_000), 5_168);
        assert_eq!(weight(u32::MAX), 1_168 + 4 * u64::from(u32::MAX));
    }

    #[test]
    fn a_reserve_covers_what_needs_no_more() {
        let reserve = |max_additional_size, max_additional_sigops| {
            Constraints { max_additional_size, max_additional_sigops }.reserve()
        };
        assert_eq!(reserve(0, 4), reserve(208, 4));
        assert!(reserve(300, 4).covers(reserve(300, 4)));
        assert!(reserve(300, 4).covers(reserve(299, 3)));
        assert!(!reserve(300, 4).covers(reserve(299, 5)));
        assert!(!reserve(300, 4).covers(reserve(301, 0)));
    }
}
