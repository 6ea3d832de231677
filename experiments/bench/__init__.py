"""What do parts of the library cost, beside work that nobody can avoid or beside a peer?"""
