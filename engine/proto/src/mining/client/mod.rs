//! The client of the Mining Protocol: what a device, a proxy or a load generator speaks to its upstream.
