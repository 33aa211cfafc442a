//! Components with fewer samples than the image has pixels, enlarged as libjpeg's `jdsample.c` does: halves by a triangle
//! filter ("fancy upsampling"), other parts by repeating samples.

/// A component's samples, in rows of `stride`; what lies beyond `width` and `height` is filled up for whole blocks.
pub(super) struct Plane {
    pub levels: Vec<u8>,
    pub stride: usize,
    pub height: usize,
    pub width: usize,
    /// How many pixels a sample stands for, across and down.
    pub parts: (usize, usize),
}

impl Plane {
    fn row(&self, row: usize) -> &[u8] {
        &self.levels[row * self.stride..][..self.width]
    }

    /// The levels of row `y` of the image, in `row`; `sums` is for intermediate results.
    #[inline(always)]
    pub fn upsampled<'a>(&'a self, y: usize, row: &'a mut Vec<u8>, sums: &mut Vec<u16>) -> &'a [u8] {
        let (across, down) = self.parts;
        let near = self.row((y / down).min(self.height - 1));
        // The other row that a pixel lies between: outside of the image there is the nearest again.
        let other = || match y % 2 {
            0 => self.row((y / 2).saturating_sub(1)),
            _ => self.row((y / 2 + 1).min(self.height - 1)),
        };
        // With two samples or fewer in a row the filter has no middle.
        let is_smooth = self.width > 2;
        match (across, down) {
            (1, 1) => return near,
            (2, 1) if is_smooth => twice(near, row),
            (1, 2) => {
                let bias = 1 + (y % 2) as u16;
                row.resize(self.width, 0);
                for ((level, near), other) in row.iter_mut().zip(near).zip(other()) {
                    *level = between(*near, *other, bias);
                }
            }
            (2, 2) if is_smooth => {
                sums.resize(self.width, 0);
                for ((sum, near), other) in sums.iter_mut().zip(near).zip(other()) {
                    *sum = 3 * u16::from(*near) + u16::from(*other);
                }
                twice_of_sums(sums, row);
            }
            _ => {
                row.resize(across * self.width, 0);
                for (levels, level) in row.chunks_exact_mut(across).zip(near) {
                    levels.fill(*level);
                }
            }
        }
        row
    }
}

/// A quarter of one and three of the other, rounded by `bias`.
#[inline(always)]
fn between(near: u8, other: u8, bias: u16) -> u8 {
    ((3 * u16::from(near) + u16::from(other) + bias) >> 2) as u8
}

#[inline(always)]
fn twice(samples: &[u8], row: &mut Vec<u8>) {
    row.resize(2 * samples.len(), 0);
    let last = samples.len() - 1;
    (row[0], row[1]) = (samples[0], between(samples[0], samples[1], 2));
    let (before, here, after) = (&samples[..last - 1], &samples[1..last], &samples[2..]);
    for (((pair, before), here), after) in row[2..].chunks_exact_mut(2).zip(before).zip(here).zip(after) {
        pair[0] = between(*here, *before, 1);
        pair[1] = between(*here, *after, 2);
    }
    (row[2 * last], row[2 * last + 1]) = (between(samples[last], samples[last - 1], 1), samples[last]);
}

/// Of sums that are four times a level.
#[inline(always)]
fn twice_of_sums(sums: &[u16], row: &mut Vec<u8>) {
    row.resize(2 * sums.len(), 0);
    let last = sums.len() - 1;
    let between = |near: u16, other: u16, bias: u16| ((3 * near + other + bias) >> 4) as u8;
    (row[0], row[1]) = (((4 * sums[0] + 8) >> 4) as u8, between(sums[0], sums[1], 7));
    let (before, here, after) = (&sums[..last - 1], &sums[1..last], &sums[2..]);
    for (((pair, before), here), after) in row[2..].chunks_exact_mut(2).zip(before).zip(here).zip(after) {
        pair[0] = between(*here, *before, 8);
        pair[1] = between(*here, *after, 7);
    }
    (row[2 * last], row[2 * last + 1]) = (between(sums[last], sums[last - 1], 8), ((4 * sums[last] + 7) >> 4) as u8);
}
