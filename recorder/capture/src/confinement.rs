//! What the recorder takes away from itself before it reads the first byte of a peer: of the file system it keeps the journal's folder
//! and that of the checkpoints, and of the system calls those that start programs, look into other processes or change its surroundings
//! are refused. So who finds a way in finds no key, no catalogue, no queue and no program.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use callvault_confine::{beneath, refuse_escapes};
use callvault_control::Start;

/// Confines this thread and all that it starts. What a kernel cannot do is said and is no reason not to record.
pub(crate) fn enter(settings: &Start) {
    let checkpoints = settings.checkpoint_dir.as_deref().filter(|folder| is_there(folder));
    let folders: Vec<&Path> = checkpoints.into_iter().chain([settings.journal_dir.as_path()]).collect();
    match beneath(&folders) {
        Ok(true) => {}
        Ok(false) => tracing::warn!(
            "there is no Landlock, as the kernel has none or a filter around this service refuses it: the recorder could read other files of its user"
        ),
        Err(error) => tracing::error!(%error, "failed to give up the other folders: {error}"),
    }
    if let Err(error) = refuse_escapes() {
        tracing::error!(%error, "failed to give up system calls: {error}");
    }
}

/// Whether the folder is there; it is made where it is missing, as it could not be afterwards. It is judged when it is opened.
fn is_there(folder: &Path) -> bool {
    let _ = DirBuilder::new().mode(0o700).create(folder);
    folder.is_dir()
}
