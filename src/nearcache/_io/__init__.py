"""How the engine reaches the world: user code and waiting, blocking or in asyncio."""
