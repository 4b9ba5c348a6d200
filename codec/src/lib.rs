//! Stratum V2 bytes to messages and back: frames, messages, TLV, Noise, keys.
