//! The roles of Stratum V2 as thin layers above the engine; the program adit.
