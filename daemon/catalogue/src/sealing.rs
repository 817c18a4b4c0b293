//! Sealed columns and the key that they are sealed with. The form is in the crate's doc.

use callvault_seal::{Cipher, DataKey, Keyring, NONCE_BYTES, SEALED_KEY_BYTES, SealedKey, seal_key};
use rand::CryptoRng;
use rusqlite::Connection;
use uuid::Uuid;

use crate::{CatalogueError, schema};

/// Bytes of one sealed column's content. The raw signalling bodies of a long call fit; more stays in journal and archive only.
pub const SEALED_BYTES_MAX: usize = 1 << 20;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + NONCE_BYTES;
const DATA_KEY: &str = "data_key";
const CATALOGUE_ID: &str = "catalogue_id";

/// The catalogue's cipher, bound to its id.
pub(crate) struct Sealing {
    cipher: Cipher,
    catalogue: Uuid,
}

impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealing").field("catalogue", &self.catalogue).finish_non_exhaustive()
    }
}

impl Sealing {
    /// Reads the key, or makes one for a new catalogue. A key that is not sealed to the keyring's current key yet is sealed to
    /// it as well, so that older keys may be retired after a rotation.
    pub(crate) fn open(
        db: &mut Connection,
        keyring: &Keyring,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, CatalogueError> {
        let sql = CatalogueError::sql("read the catalogue's key");
        let transaction = schema::write(db).map_err(&sql)?;
        let id = schema::meta(&transaction, CATALOGUE_ID).map_err(&sql)?;
        let sealed = schema::meta(&transaction, DATA_KEY).map_err(&sql)?;
        let (catalogue, mut keys) = match (id, sealed) {
            (None, None) => (new_id(rng), Vec::new()),
            (Some(id), Some(sealed)) => (
                Uuid::from_slice(&id).map_err(|_| CatalogueError::DamagedMeta(CATALOGUE_ID))?,
                sealed.chunks(SEALED_KEY_BYTES).map(SealedKey::from_bytes).collect::<Result<_, _>>()?,
            ),
            (None, Some(_)) => return Err(CatalogueError::DamagedMeta(CATALOGUE_ID)),
            (Some(_), None) => return Err(CatalogueError::DamagedMeta(DATA_KEY)),
        };
        let context = context(catalogue);
        let key = if keys.is_empty() { DataKey::generate(rng) } else { keyring.open(&keys, &context)? };
        if !keys.iter().any(|sealed| sealed.recipient == keyring.public().id()) {
            keys.push(seal_key(rng, keyring.public(), &key, &context));
            let bytes: Vec<u8> = keys.iter().flat_map(SealedKey::to_bytes).collect();
            schema::set_meta(&transaction, CATALOGUE_ID, catalogue.as_bytes()).map_err(&sql)?;
            schema::set_meta(&transaction, DATA_KEY, &bytes).map_err(&sql)?;
        }
        transaction.commit().map_err(&sql)?;
        Ok(Self { cipher: key.cipher(), catalogue })
    }

    /// A cipher with a key of its own, bound to another id than the catalogue's.
    pub(crate) fn with_key(key: &DataKey, id: Uuid) -> Self {
        Self { cipher: key.cipher(), catalogue: id }
    }

    pub(crate) fn seal(
        &self,
        rng: &mut dyn CryptoRng,
        id: Uuid,
        column: &'static str,
        content: &[u8],
    ) -> Result<Vec<u8>, CatalogueError> {
        if content.len() > SEALED_BYTES_MAX {
            let (bytes, max) = (content.len(), SEALED_BYTES_MAX);
            return Err(CatalogueError::TooLarge { id, column, bytes, max });
        }
        let mut nonce = [0; NONCE_BYTES];
        rng.fill_bytes(&mut nonce);
        let mut sealed = Vec::with_capacity(HEAD_BYTES + content.len() + 16);
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(content);
        self.cipher.seal(&nonce, &self.aad(id, column), &mut sealed, HEAD_BYTES);
        Ok(sealed)
    }

    pub(crate) fn open_column(&self, id: Uuid, column: &'static str, sealed: &[u8]) -> Result<Vec<u8>, CatalogueError> {
        let damaged = || CatalogueError::Damaged { id, column };
        let (head, body) = sealed.split_at_checked(HEAD_BYTES).ok_or_else(damaged)?;
        let (version, nonce) = head.split_first().ok_or_else(damaged)?;
        let nonce: &[u8; NONCE_BYTES] = nonce.try_into().map_err(|_| damaged())?;
        if *version != VERSION {
            return Err(damaged());
        }
        let mut content = body.to_vec();
        self.cipher.open(nonce, &self.aad(id, column), &mut content).map_err(|_| damaged())?;
        Ok(content)
    }

    fn aad(&self, id: Uuid, column: &str) -> Vec<u8> {
        [b"callvault catalogue 1\0", column.as_bytes(), b"\0", self.catalogue.as_bytes(), id.as_bytes()].concat()
    }
}

fn new_id(rng: &mut dyn CryptoRng) -> Uuid {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

fn context(catalogue: Uuid) -> Vec<u8> {
    [b"catalogue".as_slice(), catalogue.as_bytes()].concat()
}
