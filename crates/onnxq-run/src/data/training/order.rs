//! Which documents are held out, and in which order examples come: by digests and seeds alone.

/// Whether a document with this digest is among the share that is held out.
pub(super) fn held_out(digest: [u8; 32], share: f64) -> bool {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    // 53 bits, which f64 holds exactly.
    let place = (u64::from_le_bytes(first) >> 11) as f64 / (1u64 << 53) as f64;
    place < share
}

/// The order of so many examples in an epoch: each once, another order for each seed and epoch.
pub fn order(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut state = mixed(mixed(seed).wrapping_add(epoch));
    let mut order: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let other = (u128::from(mixed(state)) * (at as u128 + 1)) >> 64;
        order.swap(at, other as usize);
    }
    order
}

/// The output function of splitmix64 (Steele, Lea, Flood 2014).
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_each_example_once() {
        for count in [0, 1, 2, 7, 1000] {
            let mut list = order(count, 3, 4);
            assert_eq!(list, order(count, 3, 4));
            list.sort_unstable();
            assert_eq!(list, (0..count).collect::<Vec<_>>());
        }
        assert_ne!(order(100, 3, 4), order(100, 3, 5));
        assert_ne!(order(100, 3, 4), order(100, 4, 4));
        assert_ne!(order(100, 3, 4), order(100, 4, 3));
    }

    #[test]
    fn a_share_is_held_out() {
        use sha2::{Digest, Sha256};
        let digests: Vec<[u8; 32]> =
            (0..4000u32).map(|it| Sha256::digest(it.to_le_bytes()).into()).collect();
        let count = |share: f64| digests.iter().filter(|it| held_out(**it, share)).count();
        assert_eq!((count(0.0), count(1.0)), (0, 4000));
        assert!((350..450).contains(&count(0.1)), "{}", count(0.1));
        assert!(digests.iter().all(|it| !held_out(*it, 0.1) || held_out(*it, 0.2)));
    }
}
