//! What a completion belongs to, as the 64 bits that travel through the kernel.

/// A kind of operation, all but one on a socket. At most one of each kind is under way on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    Receive = 1,
    Send = 2,
    Cancel = 3,
    Shutdown = 4,
    Close = 5,
    /// The poll of the wake's eventfd; belongs to no slot.
    Wake = 6,
}

/// Operation and slot in one word. A slot is not reused before its last operation has completed, so nothing else is
/// needed to tell a late completion.
pub(super) const fn user_data(operation: Operation, slot: u32) -> u64 {
    (operation as u64) << 32 | slot as u64
}

/// The reverse of [`user_data`]. None for words that no operation of ours carries.
pub(super) const fn parse(user_data: u64) -> Option<(Operation, u32)> {
    let operation = match user_data >> 32 {
        1 => Operation::Receive,
        2 => Operation::Send,
        3 => Operation::Cancel,
        4 => Operation::Shutdown,
        5 => Operation::Close,
        6 => Operation::Wake,
        _ => return None,
    };
    Some((operation, user_data as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for operation in [
            Operation::Receive,
            Operation::Send,
            Operation::Cancel,
            Operation::Shutdown,
            Operation::Close,
            Operation::Wake,
        ] {
            for slot in [0, 1, 19_999, u32::MAX] {
                assert_eq!(parse(user_data(operation, slot)), Some((operation, slot)));
            }
        }
        assert_eq!(parse(0), None);
        assert_eq!(parse(u64::MAX), None);
    }
}
