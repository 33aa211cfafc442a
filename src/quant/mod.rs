//! Quantizers.
