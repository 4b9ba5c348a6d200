//! Authority and static keys, and the certificate (spec 4.5, 4.7).
