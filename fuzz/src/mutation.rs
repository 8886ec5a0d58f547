//! Inputs near valid ones, the same in every run: what the test on stable uses in libFuzzer's place.

/// Makes inputs from seeds. What it makes depends on nothing but the number it began with.
#[derive(Debug)]
pub struct Mutator(u64);

impl Mutator {
    /// Begins with a number: other numbers make other inputs.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a length");
        usize::try_from(self.next() % bound).expect("below a length")
    }

    /// One of the seeds, changed in one to four places.
    #[must_use]
    pub fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.pick(seeds).clone();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, seeds);
        }
        bytes
    }

    fn pick<'s>(&mut self, seeds: &'s [Vec<u8>]) -> &'s Vec<u8> {
        let at = self.below(seeds.len());
        &seeds[at]
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        if bytes.is_empty() {
            bytes.push(self.next().to_le_bytes()[0]);
            return;
        }
        let at = self.place(bytes.len());
        let length = 1 + self.below(16);
        let end = bytes.len().min(at + length);
        match self.below(8) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.interesting_byte(),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let stretch = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, stretch));
            }
            5 => {
                let random: Vec<u8> = (0..length).map(|_| self.next().to_le_bytes()[0]).collect();
                drop(bytes.splice(at..at, random));
            }
            6 => {
                let number = self.interesting_number().to_le_bytes();
                let width = number.len().min(end - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
            _ => self.splice(bytes, at, seeds),
        }
    }

    /// Any place, but often one near the front, where lengths and types stand.
    fn place(&mut self, length: usize) -> usize {
        if self.below(2) == 0 {
            self.below(length.min(128))
        } else {
            self.below(length)
        }
    }

    fn interesting_byte(&mut self) -> u8 {
        // Bounds of integers; CBOR's indefinite lengths, null, nested maps and longest length fields.
        const BYTES: [u8; 12] = [
            0, 1, 0x7f, 0x80, 0xff, 0x1b, 0x5f, 0x9f, 0xbf, 0xf6, 0x9b, 0xa2,
        ];
        BYTES[self.below(BYTES.len())]
    }

    fn interesting_number(&mut self) -> u64 {
        const NUMBERS: [u64; 8] = [
            0,
            1,
            u64::MAX,
            i64::MAX as u64,
            u32::MAX as u64,
            u16::MAX as u64,
            1 << 20,
            1 << 62,
        ];
        NUMBERS[self.below(NUMBERS.len())]
    }

    /// The front of this one and the back of another.
    fn splice(&mut self, bytes: &mut Vec<u8>, at: usize, seeds: &[Vec<u8>]) {
        let other = self.pick(seeds).clone();
        if !other.is_empty() {
            let from = self.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}
