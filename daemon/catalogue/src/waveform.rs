//! Waveforms, as archiving worked them out: sealed like a column, overwritten with the row of a deleted recording. They say nothing that the
//! audio does not, so one that is lost is only worked out again.

use rand::CryptoRng;
use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, catalogue::Writer, row, schema, sealing::Sealing};

/// The sealed column's name.
const PEAKS: &str = "peaks";

impl Catalogue {
    /// The waveform that [`Catalogue::put_waveform`] was given; `None` where there is none.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`]; disk errors.
    pub fn waveform(&self, id: Uuid) -> Result<Option<Vec<u8>>, CatalogueError> {
        let sql = "SELECT peaks FROM waveforms WHERE recording_id = ?1";
        let found: Option<Vec<u8>> = self
            .reader()
            .query_row(sql, [id.to_string()], |row| row.get(0))
            .optional()
            .map_err(CatalogueError::sql("read a waveform"))?;
        found.map(|sealed| self.sealing.open_column(id, PEAKS, &sealed)).transpose()
    }

    /// Keeps a recording's waveform, whatever its form, in the place of one that is there. False when the recording is unknown or was deleted.
    ///
    /// # Errors
    /// [`CatalogueError::TooLarge`]; disk errors.
    pub fn put_waveform(&self, id: Uuid, peaks: &[u8]) -> Result<bool, CatalogueError> {
        let what = CatalogueError::sql("keep a waveform");
        let Writer { db, rng } = &mut *self.writer();
        let sealed = self.sealing.seal(&mut **rng, id, PEAKS, peaks)?;
        let sql = "INSERT INTO waveforms (recording_id, peaks) SELECT id, ?2 FROM recordings WHERE id = ?1 \
                   ON CONFLICT (recording_id) DO UPDATE SET peaks = excluded.peaks";
        let transaction = schema::write(db).map_err(&what)?;
        let count = transaction.execute(sql, (id.to_string(), sealed)).map_err(&what)?;
        transaction.commit().map_err(&what)?;
        Ok(count > 0)
    }
}

pub(crate) fn remove(db: &Connection, id: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM waveforms WHERE recording_id = ?1", [id]).map(drop)
}

/// Takes over what an old catalogue has, as far as it can be read, of recordings that are in the new one.
pub(crate) fn carry_over(
    (old, of_old): (&Connection, &Sealing),
    (new, of_new): (&Connection, &Sealing),
    rng: &mut dyn CryptoRng,
) -> Result<(), CatalogueError> {
    let what = CatalogueError::sql("take over waveforms");
    let mut statement = old.prepare("SELECT recording_id, peaks FROM waveforms").map_err(&what)?;
    let mut rows = statement.query([]).map_err(&what)?;
    while let Ok(Some(row)) = rows.next() {
        let (Ok(id), Ok(sealed)) = (row::uuid(row, 0), row.get::<_, Vec<u8>>(1)) else { continue };
        let Ok(peaks) = of_old.open_column(id, PEAKS, &sealed) else { continue };
        let sealed = of_new.seal(rng, id, PEAKS, &peaks)?;
        let sql = "INSERT INTO waveforms (recording_id, peaks) SELECT id, ?2 FROM recordings WHERE id = ?1 \
                   ON CONFLICT (recording_id) DO NOTHING";
        new.execute(sql, (id.to_string(), sealed)).map_err(&what)?;
    }
    Ok(())
}
