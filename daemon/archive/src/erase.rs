//! Making an archive unreadable for ever: the first step of deleting a recording.

use std::io::{Read, Seek, SeekFrom, Write};

use crate::ArchiveError;
use crate::chunk::ChunkHeader;
use crate::header::{self, CHUNKS_OFFSET, COPY_OFFSETS, SLOTS_OFFSET};

/// Bytes searched at a time.
const SEARCH_BYTES: usize = 256 * 1_024;

/// Overwrites the sealed keys in both copies of the header, and says how many copies that was. Doing it twice is the same as once.
///
/// It is for the caller to sync the file before anything is said to be deleted, and then to remove the file. On a store that
/// keeps older versions of blocks (snapshots, copy on write, flash) the old bytes can outlive this; where that matters, `archive.keys
/// = "catalogue"` keeps the keys out of the store.
///
/// An archive whose keys are elsewhere is marked as erased all the same; whoever has its key can still read it.
///
/// Where a copy is not in its place, the whole file is searched for it, so a damaged archive keeps no key either.
///
/// # Errors
/// [`ArchiveError::NotAnArchive`] when nothing in the file says that it is one, [`ArchiveError::Newer`]; nothing is written then.
/// [`ArchiveError::Io`]: try again, some keys may be left.
pub fn erase_keys<F: Read + Write + Seek>(file: &mut F) -> Result<u32, ArchiveError> {
    let length = file.seek(SeekFrom::End(0)).map_err(ArchiveError::io("find the length of an archive"))?;
    let mut erased = 0;
    for copy in copies(file)? {
        let slots = header::erased_slots();
        let at = copy + SLOTS_OFFSET as u64;
        let room = length.saturating_sub(at).min(slots.len() as u64) as usize;
        if room > 0 {
            let doing = || ArchiveError::io(format!("erase the keys of an archive at offset {at}"));
            file.seek(SeekFrom::Start(at)).map_err(doing())?;
            file.write_all(&slots[..room]).map_err(doing())?;
            erased += 1;
        }
    }
    file.flush().map_err(ArchiveError::io("erase the keys of an archive"))?;
    Ok(erased)
}

/// Where the copies of the header are.
fn copies<F: Read + Seek>(file: &mut F) -> Result<Vec<u64>, ArchiveError> {
    let places = COPY_OFFSETS.map(|offset| offset as u64);
    let mut ahead = Vec::new();
    read_at(file, 0, header::SEARCH_BYTES, &mut ahead)?;
    let mut intact = 0;
    for offset in COPY_OFFSETS {
        let copy = ahead.get(offset..).unwrap_or_default();
        intact += usize::from(header::parse_fixed(copy)?.is_some());
    }
    if intact == places.len() {
        return Ok(places.to_vec());
    }
    let mut found = search(file)?;
    let first_chunk = ahead.get(CHUNKS_OFFSET..).and_then(ChunkHeader::parse);
    if found.is_empty() && first_chunk.is_none() {
        return Err(ArchiveError::NotAnArchive);
    }
    found.extend(places);
    Ok(found)
}

/// Every place where the magic of a header stands.
fn search<F: Read + Seek>(file: &mut F) -> Result<Vec<u64>, ArchiveError> {
    let (mut found, mut offset, mut window) = (Vec::new(), 0, Vec::new());
    loop {
        read_at(file, offset, SEARCH_BYTES, &mut window)?;
        found.extend(header::find_magics(&window).map(|at| offset + at as u64));
        if window.len() < SEARCH_BYTES {
            return Ok(found);
        }
        // Windows overlap, so that a magic across the border is seen.
        offset += (SEARCH_BYTES - header::MAGIC.len() + 1) as u64;
    }
}

fn read_at<F: Read + Seek>(file: &mut F, offset: u64, bytes: usize, to: &mut Vec<u8>) -> Result<(), ArchiveError> {
    let doing = || ArchiveError::io(format!("read an archive at offset {offset}"));
    to.clear();
    file.seek(SeekFrom::Start(offset)).map_err(doing())?;
    file.take(bytes as u64).read_to_end(to).map_err(doing())?;
    Ok(())
}
