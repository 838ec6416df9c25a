"""What every part uses: the processes under test, figures about them, HTTP, tables. Measures nothing by itself."""
