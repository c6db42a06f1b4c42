<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis styleCategories="Symbology" version="3.40">
 <renderer-v2 type="categorizedSymbol" attr="split">
  <categories>
   <category label="train" type="string" value="train" render="true" symbol="0"/>
   <category label="validation" type="string" value="validation" render="true" symbol="1"/>
   <category label="test" type="string" value="test" render="true" symbol="2"/>
   <category label="in no set" type="string" value="" render="true" symbol="3"/>
  </categories>
  <symbols>
   <symbol type="fill" name="0">
    <layer class="SimpleFill" enabled="1">
     <Option type="Map">
      <Option type="QString" name="color" value="0,114,178,120"/>
      <Option type="QString" name="outline_color" value="40,40,40,255"/>
      <Option type="QString" name="outline_width" value="0.2"/>
     </Option>
    </layer>
   </symbol>
   <symbol type="fill" name="1">
    <layer class="SimpleFill" enabled="1">
     <Option type="Map">
      <Option type="QString" name="color" value="230,159,0,120"/>
      <Option type="QString" name="outline_color" value="40,40,40,255"/>
      <Option type="QString" name="outline_width" value="0.2"/>
     </Option>
    </layer>
   </symbol>
   <symbol type="fill" name="2">
    <layer class="SimpleFill" enabled="1">
     <Option type="Map">
      <Option type="QString" name="color" value="0,158,115,120"/>
      <Option type="QString" name="outline_color" value="40,40,40,255"/>
      <Option type="QString" name="outline_width" value="0.2"/>
     </Option>
    </layer>
   </symbol>
   <symbol type="fill" name="3">
    <layer class="SimpleFill" enabled="1">
     <Option type="Map">
      <Option type="QString" name="color" value="200,200,200,120"/>
      <Option type="QString" name="outline_color" value="40,40,40,255"/>
      <Option type="QString" name="outline_width" value="0.2"/>
     </Option>
    </layer>
   </symbol>
  </symbols>
 </renderer-v2>
</qgis>
