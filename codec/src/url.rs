//! The pool address with its authority key (spec 4.7).
