//! An RTCP compound, against a second reading of the first sender report and of the first source that leaves.

use callvault_media::{Datagram, RTCP_BLOCKS_MAX, Rtcp};

/// Reads the compound.
pub fn run(input: &[u8]) {
    let blocks = blocks(input);
    let Ok(rtcp) = Rtcp::parse(input) else {
        assert!(blocks.is_empty(), "a whole packet is there and is not read");
        return;
    };
    assert!(!blocks.is_empty());
    let report = blocks.iter().find(|block| block[1] == 200 && block.len() >= 28);
    assert!(report.map(|block| u32_at(block, 4)) == rtcp.sender_report.map(|report| report.ssrc));
    assert!(report.map(|block| u32_at(block, 24)) == rtcp.sender_report.map(|report| report.bytes));
    let goodbye = blocks.iter().find(|block| block[1] == 203 && block[0] & 0x1f > 0 && block.len() >= 8);
    assert!(goodbye.map(|block| u32_at(block, 4)) == rtcp.goodbye);
    if let Some(cname) = &rtcp.cname {
        assert!(input.get(cname.name.clone()).is_some_and(|name| name.len() <= 255), "the name is not in the datagram");
    }
    if (128..=191).contains(&input[0]) && (192..=223).contains(&input[1]) {
        assert!(Datagram::parse(input) == Ok(Datagram::Rtcp(rtcp)));
    }
}

/// The whole packets of a compound, by their lengths (RFC 3550 section 6.4.1).
fn blocks(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut blocks = Vec::new();
    while let [first, _, high, low, ..] = rest
        && first >> 6 == 2
        && blocks.len() < RTCP_BLOCKS_MAX
    {
        let bytes = (usize::from(u16::from_be_bytes([*high, *low])) + 1) * 4;
        let Some((block, behind)) = rest.split_at_checked(bytes) else { break };
        blocks.push(block);
        rest = behind;
    }
    blocks
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}
