"""Request traces of others, played through nearcache, its peers and the policies of the literature."""
