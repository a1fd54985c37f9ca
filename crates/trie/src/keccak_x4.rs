//! Four keccak256 at once, one in each 64-bit lane of AVX2 registers.
//!
//! A trie hashes thousands of nodes of the same few lengths, so messages of one length in blocks are
//! easy to find; together they cost little more than half of what alloy's (assembly) keccak256 costs one
//! by one. Without AVX2 callers are told so and hash one by one.

#![expect(
    unsafe_code,
    reason = "calling a function compiled for AVX2, behind a run-time check: the one unsafe call of this crate"
)]

use alloy_primitives::B256;

/// Bytes that one permutation absorbs.
pub(crate) const RATE: usize = 136;

/// Messages padded to whole blocks, as [`pad`] leaves them.
pub(crate) type Lanes<'a> = [&'a [u8]; 4];

/// Pads a message to whole blocks.
pub(crate) fn pad(message: &mut Vec<u8>) {
    let padded = blocks(message.len()) * RATE;
    message.push(0x01);
    message.resize(padded, 0);
    message[padded - 1] |= 0x80;
}

/// Permutations that a message of `len` bytes takes.
pub(crate) const fn blocks(len: usize) -> usize {
    len / RATE + 1
}

/// Whether [`digest`] can run here.
#[cfg(target_arch = "x86_64")]
pub(crate) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

/// Whether [`digest`] can run here.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const fn available() -> bool {
    false
}

/// keccak256 of four padded messages of equal length.
///
/// # Panics
/// Without AVX2: see [`available`].
#[cfg(target_arch = "x86_64")]
pub(crate) fn digest(lanes: Lanes<'_>) -> [B256; 4] {
    assert!(available(), "four-way keccak runs only where AVX2 is");
    // SAFETY: the processor has AVX2, as just asserted; nothing else is asked of the caller.
    unsafe { avx2::digest(lanes) }
}

/// keccak256 of four padded messages of equal length: never called, see [`available`].
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn digest(_lanes: Lanes<'_>) -> [B256; 4] {
    unreachable!("four-way keccak runs only where AVX2 is")
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Lanes, RATE};
    use alloy_primitives::B256;
    use std::arch::x86_64::{
        __m256i, _mm256_andnot_si256, _mm256_extract_epi64, _mm256_or_si256, _mm256_set_epi64x,
        _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_slli_epi64, _mm256_srli_epi64,
        _mm256_xor_si256,
    };

    const ROUND_CONSTANTS: [u64; 24] = [
        0x0000_0000_0000_0001,
        0x0000_0000_0000_8082,
        0x8000_0000_0000_808a,
        0x8000_0000_8000_8000,
        0x0000_0000_0000_808b,
        0x0000_0000_8000_0001,
        0x8000_0000_8000_8081,
        0x8000_0000_0000_8009,
        0x0000_0000_0000_008a,
        0x0000_0000_0000_0088,
        0x0000_0000_8000_8009,
        0x0000_0000_8000_000a,
        0x0000_0000_8000_808b,
        0x8000_0000_0000_008b,
        0x8000_0000_0000_8089,
        0x8000_0000_0000_8003,
        0x8000_0000_0000_8002,
        0x8000_0000_0000_0080,
        0x0000_0000_0000_800a,
        0x8000_0000_8000_000a,
        0x8000_0000_8000_8081,
        0x8000_0000_0000_8080,
        0x0000_0000_8000_0001,
        0x8000_0000_8000_8008,
    ];

    #[target_feature(enable = "avx2")]
    pub(super) fn digest(lanes: Lanes<'_>) -> [B256; 4] {
        let [a, b, c, d] = lanes;
        let mut state = [_mm256_setzero_si256(); 25];
        for block in (0..a.len()).step_by(RATE) {
            for (index, lane) in state[..RATE / 8].iter_mut().enumerate() {
                let at = block + 8 * index;
                let words = _mm256_set_epi64x(word(d, at), word(c, at), word(b, at), word(a, at));
                *lane = _mm256_xor_si256(*lane, words);
            }
            permute(&mut state);
        }
        let mut out = [B256::ZERO; 4];
        for (index, lane) in state[..4].iter().enumerate() {
            let at = 8 * index..8 * index + 8;
            out[0].0[at.clone()].copy_from_slice(&_mm256_extract_epi64::<0>(*lane).to_le_bytes());
            out[1].0[at.clone()].copy_from_slice(&_mm256_extract_epi64::<1>(*lane).to_le_bytes());
            out[2].0[at.clone()].copy_from_slice(&_mm256_extract_epi64::<2>(*lane).to_le_bytes());
            out[3].0[at].copy_from_slice(&_mm256_extract_epi64::<3>(*lane).to_le_bytes());
        }
        out
    }

    #[inline(always)]
    fn word(message: &[u8], at: usize) -> i64 {
        i64::from_le_bytes(message[at..at + 8].try_into().expect("eight bytes"))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn rotate<const LEFT: i32, const RIGHT: i32>(x: __m256i) -> __m256i {
        _mm256_or_si256(_mm256_slli_epi64::<LEFT>(x), _mm256_srli_epi64::<RIGHT>(x))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn xor(a: __m256i, b: __m256i) -> __m256i {
        _mm256_xor_si256(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn chi(row: [__m256i; 5]) -> [__m256i; 5] {
        let [a, e, i, o, u] = row;
        [
            xor(a, _mm256_andnot_si256(e, i)),
            xor(e, _mm256_andnot_si256(i, o)),
            xor(i, _mm256_andnot_si256(o, u)),
            xor(o, _mm256_andnot_si256(u, a)),
            xor(u, _mm256_andnot_si256(a, e)),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn xor_row(a: [__m256i; 5], b: [__m256i; 5]) -> [__m256i; 5] {
        [xor(a[0], b[0]), xor(a[1], b[1]), xor(a[2], b[2]), xor(a[3], b[3]), xor(a[4], b[4])]
    }

    /// Keccak-f[1600]; lane (x, y) of the standard is at `5 * y + x`.
    ///
    /// Column parities (theta) are summed up row by row as a round yields them: the state does not fit
    /// into the registers, and so is read once a round instead of twice.
    #[target_feature(enable = "avx2")]
    fn permute(state: &mut [__m256i; 25]) {
        let mut s = *state;
        let row = |y: usize| [s[5 * y], s[5 * y + 1], s[5 * y + 2], s[5 * y + 3], s[5 * y + 4]];
        let mut parity = row(0);
        for y in 1..5 {
            parity = xor_row(parity, row(y));
        }
        for constant in ROUND_CONSTANTS {
            let [c0, c1, c2, c3, c4] = parity;
            let d0 = xor(c4, rotate::<1, 63>(c1));
            let d1 = xor(c0, rotate::<1, 63>(c2));
            let d2 = xor(c1, rotate::<1, 63>(c3));
            let d3 = xor(c2, rotate::<1, 63>(c4));
            let d4 = xor(c3, rotate::<1, 63>(c0));
            // Rho and pi gather a row, chi mixes it.
            let mut row_0 = chi([
                xor(s[0], d0),
                rotate::<44, 20>(xor(s[6], d1)),
                rotate::<43, 21>(xor(s[12], d2)),
                rotate::<21, 43>(xor(s[18], d3)),
                rotate::<14, 50>(xor(s[24], d4)),
            ]);
            row_0[0] = xor(row_0[0], _mm256_set1_epi64x(constant as i64));
            let row_1 = chi([
                rotate::<28, 36>(xor(s[3], d3)),
                rotate::<20, 44>(xor(s[9], d4)),
                rotate::<3, 61>(xor(s[10], d0)),
                rotate::<45, 19>(xor(s[16], d1)),
                rotate::<61, 3>(xor(s[22], d2)),
            ]);
            parity = xor_row(row_0, row_1);
            let row_2 = chi([
                rotate::<1, 63>(xor(s[1], d1)),
                rotate::<6, 58>(xor(s[7], d2)),
                rotate::<25, 39>(xor(s[13], d3)),
                rotate::<8, 56>(xor(s[19], d4)),
                rotate::<18, 46>(xor(s[20], d0)),
            ]);
            parity = xor_row(parity, row_2);
            let row_3 = chi([
                rotate::<27, 37>(xor(s[4], d4)),
                rotate::<36, 28>(xor(s[5], d0)),
                rotate::<10, 54>(xor(s[11], d1)),
                rotate::<15, 49>(xor(s[17], d2)),
                rotate::<56, 8>(xor(s[23], d3)),
            ]);
            parity = xor_row(parity, row_3);
            let row_4 = chi([
                rotate::<62, 2>(xor(s[2], d2)),
                rotate::<55, 9>(xor(s[8], d3)),
                rotate::<39, 25>(xor(s[14], d4)),
                rotate::<41, 23>(xor(s[15], d0)),
                rotate::<2, 62>(xor(s[21], d1)),
            ]);
            parity = xor_row(parity, row_4);
            for (y, row) in [row_0, row_1, row_2, row_3, row_4].into_iter().enumerate() {
                s[5 * y..5 * y + 5].copy_from_slice(&row);
            }
        }
        *state = s;
    }
}

#[cfg(test)]
mod tests {
    use super::{available, blocks, digest, pad};
    use alloy_primitives::keccak256;

    #[test]
    fn four_at_once_equal_one_by_one_for_every_length() {
        if !available() {
            println!("no AVX2 here: four-way keccak is not used and not tested");
            return;
        }
        for len in 0..600usize {
            // Lengths differ within one number of blocks, as those of trie nodes do.
            let lens: [usize; 4] = std::array::from_fn(|lane| {
                if blocks(len + lane) == blocks(len) { len + lane } else { len }
            });
            let messages: [Vec<u8>; 4] = std::array::from_fn(|lane| {
                (0..lens[lane]).map(|i| (i * 31 + lane * 101 + len) as u8).collect()
            });
            let padded: [Vec<u8>; 4] = std::array::from_fn(|lane| {
                let mut bytes = messages[lane].clone();
                pad(&mut bytes);
                bytes
            });
            let got = digest(std::array::from_fn(|lane| padded[lane].as_slice()));
            let expected = std::array::from_fn(|lane| keccak256(&messages[lane]));
            assert_eq!(got, expected, "length {len}");
        }
    }
}
