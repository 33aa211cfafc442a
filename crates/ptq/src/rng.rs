//! Keyed random streams: every random number is a pure function of a seed and of where it is used.
//!
//! Nothing holds a generator state, so a number does not depend on what was drawn before it, on the number of threads
//! or on whether the run was resumed; a mask can be computed again in a backward pass instead of being stored.

/// What a stream is for; streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Purpose {
    /// Which calibration images are drawn from the pool.
    Calibration = 1,
    /// Which of them form a mini-batch.
    Batch = 2,
    /// Which elements of a unit's input stay in full precision.
    DropInput = 3,
    /// Which elements of a quantized activation stay in full precision.
    DropInside = 4,
    /// The starting parameters of a transform network.
    TransformInit = 5,
    /// Mini-batches of the warm-up of a transform network.
    WarmUp = 6,
    /// Mini-batches that a transform network is trained on.
    MetaBatch = 7,
    /// Original images on which a virtual update is judged.
    MetaOuter = 8,
    /// Dropping in virtual updates, and in the passes that judge them.
    MetaDrop = 9,
    /// Partners and shares of mixed-up images inside the meta-loss.
    MetaMixup = 10,
    /// Augmentation of the images that join the calibration sample.
    Augment = 11,
}

/// A stream of random numbers, addressed by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// The stream of `seed`, for nothing in particular yet.
    pub fn new(seed: u64) -> Self {
        Self { key: mix(seed ^ 0x6d65_7461_6175_6721) }
    }

    /// The stream for one purpose.
    pub fn purpose(self, purpose: Purpose) -> Self {
        self.at(purpose as u64)
    }

    /// The sub-stream of one unit, iteration, site or epoch.
    pub fn at(self, index: u64) -> Self {
        Self { key: mix(self.key.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xd6e8_feb8_6659_fd93) ^ mix(index)) }
    }

    /// The sub-stream of something named.
    pub fn named(self, name: &str) -> Self {
        // FNV-1a, and spelled out: what bytes of a text the standard library's `Hash` feeds is for it to change. The last byte
        // occurs in no UTF-8 text.
        let bytes = name.bytes().chain([0xff]);
        self.at(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    /// The 64 random bits at `index`.
    pub fn bits(self, index: u64) -> u64 {
        self.at(index).key
    }

    /// The key from which fused operations derive 32 random bits per element (see [`element_bits`]).
    pub fn element_key(self) -> [u32; 2] {
        [self.key as u32, (self.key >> 32) as u32]
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform integer in `0..n`; `n` must not be 0.
    pub fn below(self, index: u64, n: usize) -> usize {
        // Multiply-shift: the bias is below 2^-32 for any sample size met here.
        ((u128::from(self.bits(index)) * n as u128) >> 64) as usize
    }

    /// A uniform permutation of `0..n` (Fisher-Yates).
    pub fn permutation(self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64, i + 1));
        }
        order
    }
}

/// 32 random bits for element `index` of the stream with `key`; cheap enough for every element of every activation.
#[inline(always)]
pub fn element_bits(key: [u32; 2], index: u32) -> u32 {
    // Two keyed rounds of the "lowbias32" integer hash (Ellis, hash prospector).
    let mut x = index ^ key[0];
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x = (x ^ (x >> 16)).wrapping_add(key[1]);
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x ^ (x >> 15)
}

/// The threshold below which [`element_bits`] fall with probability `p`.
pub fn threshold(p: f64) -> u32 {
    (p * 4_294_967_296.0).clamp(0.0, 4_294_967_295.0) as u32
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made when names were hashed by `Hash for str`: streams of another build are the same.
    #[test]
    fn streams_are_the_same_in_every_build() {
        let stream = Stream::new(0);
        let named = |name: &str| stream.named(name).bits(0);
        assert_eq!(
            ["", "stem", "layer1.0", "Übergang"].map(named),
            [0xe11b_30e1_8193_72f3, 0x7f78_5656_59a0_a6a0, 0xdecc_3f64_84c4_d9e6, 0xfa7b_ab9b_3705_5431]
        );
        assert_eq!(Stream::new(7).named("a").named("b").bits(3), 0xcd3f_77cb_d42e_463c);
        for (purpose, bits) in [
            (Purpose::Calibration, 0x79cd_0627_d0da_d68b),
            (Purpose::Batch, 0xdfd4_3bd3_9522_1117),
            (Purpose::DropInput, 0xda3f_9671_ed85_0209),
            (Purpose::DropInside, 0x57b2_f6f1_243e_c440),
            (Purpose::TransformInit, 0x0401_82e6_04d6_a6ea),
            (Purpose::WarmUp, 0x388f_617b_a804_11cb),
            (Purpose::MetaBatch, 0xee5e_2480_9a06_e8d0),
            (Purpose::MetaOuter, 0xb651_eb53_f6c1_673d),
            (Purpose::MetaDrop, 0x7f15_e217_6f83_fb75),
            (Purpose::MetaMixup, 0xb356_ec15_5e8d_49a4),
            (Purpose::Augment, 0x3dd3_3c13_502f_855b),
        ] {
            assert_eq!(stream.purpose(purpose).bits(0), bits, "{purpose:?}");
        }
        let at = |index: u64| stream.at(index).bits(0);
        assert_eq!([0, 1, u64::MAX].map(at), [0xa21c_746d_5cba_7f1b, 0x79cd_0627_d0da_d68b, 0x14c3_d698_1280_a956]);
        assert_eq!(stream.element_key(), [2_461_062_146, 3_856_678_567]);
        assert_eq!(element_bits(stream.element_key(), 5), 964_582_454);
        assert_eq!((stream.permutation(6), stream.below(1, 1000)), (vec![1, 5, 3, 2, 0, 4], 157));
    }

    #[test]
    fn permutations_hold_every_index_once_and_differ_between_streams() {
        let stream = Stream::new(0).purpose(Purpose::Batch);
        let mut first = stream.at(0).permutation(1000);
        assert_ne!(first, stream.at(1).permutation(1000));
        first.sort_unstable();
        assert_eq!(first, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn element_bits_are_uniform_and_uncorrelated_between_neighbouring_streams() {
        let n = 1 << 20;
        let [a, b] = [0, 1].map(|site| Stream::new(7).purpose(Purpose::DropInside).at(site).element_key());
        let half = threshold(0.5);
        let below = |key| (0..n).filter(|&i| element_bits(key, i) < half).count() as f64 / f64::from(n);
        let both = (0..n).filter(|&i| (element_bits(a, i) < half) == (element_bits(b, i) < half)).count() as f64
            / f64::from(n);
        // Five standard deviations of a fair coin over n throws.
        let bound = 5.0 * 0.5 / f64::from(n).sqrt();
        for frac in [below(a), below(b), both] {
            assert!((frac - 0.5).abs() < bound, "{frac}");
        }
    }
}
