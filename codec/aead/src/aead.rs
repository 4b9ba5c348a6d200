//! The interface, whatever the backend.

use std::sync::OnceLock;

use crate::arch::Kernel;
use crate::backend::Backend;
use crate::sealed::{split_header, split_payload};
use crate::{
    Forged, KEY_LEN, Opening, SEALED_HEADER_LEN, SMALL_LEN_MAX, TAG_LEN, calibration, fallback, payload_len,
};

/// ChaCha20-Poly1305 with the kernels of this CPU: a choice, without a key. See the [crate's documentation](crate) for how it is
/// made.
#[derive(Clone, Copy, Debug)]
pub struct Aead {
    kernel: Kernel,
}

impl Aead {
    /// The fastest kernels on this CPU. The first call of the process measures them, for less than 1 ms (no measurement begins
    /// after 2 ms); later calls give the same answer at once.
    #[must_use]
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Aead> = OnceLock::new();
        *DETECTED.get_or_init(|| Self { kernel: calibration::fastest() })
    }

    /// One backend; `None` if this CPU cannot run it.
    #[must_use]
    pub fn forced(backend: Backend) -> Option<Self> {
        Kernel::of(backend).map(|kernel| Self { kernel })
    }

    /// The backend that takes small frames, for the log.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.kernel.backend()
    }

    /// Opens a text where it lies.
    ///
    /// # Errors
    /// [`Forged`] if the tag is not that of text, nonce and associated data.
    #[inline]
    pub fn open(
        &self,
        key: &[u8; KEY_LEN],
        nonce: u64,
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Forged> {
        if associated.is_empty() && text.len() <= SMALL_LEN_MAX {
            self.kernel.open(key, nonce, text, tag)
        } else {
            fallback::Key::new(key).open_with(nonce, associated, text, tag)
        }
    }

    /// Seals a text where it lies, and returns its tag.
    ///
    /// # Panics
    /// If the text is longer than ChaCha20 allows, 256 GB.
    #[inline]
    pub fn seal(&self, key: &[u8; KEY_LEN], nonce: u64, associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        if associated.is_empty() && text.len() <= SMALL_LEN_MAX {
            self.kernel.seal(key, nonce, text)
        } else {
            fallback::Key::new(key).seal_with(nonce, associated, text)
        }
    }

    /// Opens the frame that `bytes` begin with, where it lies: the header under `nonce`, and under the next one the payload, if all
    /// of it is there and it is not longer than `payload_len_max`. Afterwards the plaintext header is the first [`HEADER_LEN`]
    /// bytes, and the payload begins at [`SEALED_HEADER_LEN`].
    ///
    /// [`HEADER_LEN`]: crate::HEADER_LEN
    ///
    /// # Errors
    /// [`Forged`] if header or payload do not verify, or `bytes` are shorter than a sealed header. If the header verifies and the
    /// payload does not, the header is open and tells its length.
    #[inline]
    pub fn open_frame(
        &self,
        key: &[u8; KEY_LEN],
        nonce: u64,
        bytes: &mut [u8],
        payload_len_max: usize,
    ) -> Result<Opening, Forged> {
        match self.kernel.open_frame(key, nonce, bytes, payload_len_max)? {
            Opening::Frame => Ok(Opening::Frame),
            Opening::Header => open_long_payload(key, nonce, bytes, payload_len_max),
        }
    }

    /// Seals a frame where it lies: the header under `nonce`, and the payload, unless it is empty, under the next one. The first
    /// six of the header's bytes are its plaintext, the others room for its tag; the payload's last 16 bytes are room for its tag,
    /// and an empty one has none.
    ///
    /// # Panics
    /// If the payload has bytes, but fewer than a tag's and one.
    #[inline]
    pub fn seal_frame(
        &self,
        key: &[u8; KEY_LEN],
        nonce: u64,
        header: &mut [u8; SEALED_HEADER_LEN],
        payload: &mut [u8],
    ) {
        assert!(payload.is_empty() || payload.len() > TAG_LEN, "room for the payload's tag");
        if payload.len() <= SMALL_LEN_MAX + TAG_LEN {
            self.kernel.seal_frame(key, nonce, header, payload);
        } else {
            fallback::Key::new(key).seal_frame(nonce, header, payload);
        }
    }
}

/// Opens the payload of a frame whose header was opened by a kernel that did not take the payload.
#[cold]
fn open_long_payload(
    key: &[u8; KEY_LEN],
    nonce: u64,
    bytes: &mut [u8],
    payload_len_max: usize,
) -> Result<Opening, Forged> {
    let (header, rest) = split_header(bytes).ok_or(Forged)?;
    let len = payload_len(header.text);
    let Some(payload) = split_payload(rest, len, payload_len_max) else { return Ok(Opening::Header) };
    fallback::Key::new(key).open(nonce.wrapping_add(1), payload.text, payload.tag)?;
    Ok(Opening::Frame)
}
