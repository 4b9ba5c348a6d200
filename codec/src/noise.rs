//! The Noise handshake and transport ciphers (spec 4).
