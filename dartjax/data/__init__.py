"""Host-side reading and writing: images, meshes, cohorts, assets."""
