// A rule of one's own. The bundled rules, which find the EICAR test file, count beside it.
rule Example_Word_That_Nobody_Sends
{
    strings:
        $word = "gantry-example-rule-7c1f"
    condition:
        $word
}
